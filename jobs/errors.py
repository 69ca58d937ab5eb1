"""From an exception to an exit code and one line.

    2  the input is wrong: InputError, DataError, AdapterUnavailable, TrustError, other LedgerErrors, ValueErrors of engines
    3  a budget or a limit: BudgetExceeded, OperationalError, Stopped, Transient, no space left
    1  anything else is ours: the line says so
"""

from __future__ import annotations

import errno

from ..adapters.contract import AdapterUnavailable, Stopped, Transient
from ..privacy.ledger import BudgetExceeded
from ..privacy.private import OperationalError, PrivateStageError


def exit_code(error: BaseException) -> int:
    """0 is never returned: something went wrong."""
    if isinstance(error, BudgetExceeded | OperationalError | Stopped | Transient):
        return 3
    if isinstance(error, AdapterUnavailable | ValueError):
        return 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return 3
    if isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError):
        return 2
    return 1


def one_line(error: BaseException, code: int) -> str:
    """The error as one line for a person."""
    if isinstance(error, OSError) and error.strerror:
        way_out = "; free some and run the same command again" if code == 3 else ""
        return f"{error.filename}: {error.strerror.lower()}{way_out}" if error.filename else f"{error.strerror.lower()}{way_out}"
    text = " ".join(str(error).split())
    if code != 1 or isinstance(error, PrivateStageError):
        return text
    return f"internal error: {type(error).__name__}: {text}; run again with --debug and report it"
