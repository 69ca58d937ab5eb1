"""From an exception to an exit code and one line.

2  the input is wrong, or a file that it names: InputError, DataError, AdapterError, TrustError, other LedgerErrors, ValueErrors of engines
3  a budget or a limit: BudgetExceeded, OperationalError, Stopped, Transient, no space or memory left
1  anything else is ours: the line says so
"""

from __future__ import annotations

import errno

from ..adapters.contract import AdapterError, Stopped, Transient
from ..cache.store import StoreBusy, StoreError, StoreFull
from ..privacy.ledger import BudgetExceeded
from ..privacy.private import OperationalError, PrivateStageError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def exit_code(error: BaseException) -> int:
    """0 is never returned: something went wrong."""
    if isinstance(error, BudgetExceeded | OperationalError | Stopped | Transient | StoreFull | StoreBusy):
        return 3
    if isinstance(error, AdapterError | StoreError | ValueError):
        return 2
    if _is_out_of_memory(error) or (isinstance(error, OSError) and error.errno in NO_SPACE):
        return 3
    if isinstance(error, OSError):
        return 2
    return 1


def one_line(error: BaseException, code: int) -> str:
    """The error as one line for a person."""
    if _is_out_of_memory(error):
        return (
            "out of memory; nothing is lost: free some, or lower performance.chunk (of a training performance.micro_batch, or "
            "the batch of the stage), and run the same command again"
        )
    if isinstance(error, OSError) and error.strerror:
        way_out = "free some" if code == 3 else "give this user access to it, or name another place"
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}; {way_out}, and run the same command again"
    text = " ".join(str(error).split())
    if code != 1 or isinstance(error, PrivateStageError):
        return text
    return f"internal error: {type(error).__name__}: {text}; run again with --debug and report it"


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's, or that of torch, which is not imported here."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error))
    )
