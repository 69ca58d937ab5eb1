"""Private values: what may leave only through one of three doors.

The doors are `Ledger.release` (costs its event), `Gateway.open_trusted` (trust, recorded) and `disclose`
(a journal line; the result is unprotected). `map` keeps a value private; only `privacy/`, `data/` and
`adapters/gateway.py` call it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar, final

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class PrivateStageError(Exception):
    """Code that held private values failed. Names the stage and the type of the failure, never its text."""

    def __init__(self, stage: str, kind: str) -> None:
        super().__init__(f"{stage} failed on private values ({kind}); its message is withheld because it may hold them")
        self.stage = stage
        self.kind = kind


class OperationalError(Exception):
    """The stage stopped for a reason that is no function of a record: no space, no memory, a worker killed.

    Its text is public by construction: raise it only with words that no record can choose.
    """


class Journal(Protocol):
    """Where disclosures are written down before they happen."""

    def disclosed(self, *, partition: str, why: str) -> None: ...


@final
class Private(Generic[T_co]):
    """A value computed from private records. It cannot be shown, sent, measured, compared, iterated or pickled."""

    __slots__ = ("__value",)

    def __init_subclass__(cls, **_: Any) -> NoReturn:
        raise TypeError("Private is final")

    def __init__(self, value: T_co) -> None:
        self.__value = value

    def map(self, fn: Callable[[T_co], U], *, stage: str) -> Private[U]:
        """`fn` of the value, still private. An exception inside becomes a `PrivateStageError` of `stage`."""
        return Private(guarded(fn, self.__value, stage=stage))

    def __repr__(self) -> str:
        return "<Private>"

    def __refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "a Private value cannot be measured, compared, iterated or stored; "
            "release it through the ledger, a trusted adapter or disclose()"
        )

    __hash__ = None  # type: ignore[assignment]
    if TYPE_CHECKING:
        # What a type checker must refuse has no signature here, or one that no condition accepts.
        def __bool__(self) -> NoReturn: ...
        def __eq__(self, other: object, /) -> Private[bool]: ...  # type: ignore[override]
        def __ne__(self, other: object, /) -> Private[bool]: ...  # type: ignore[override]
    else:
        __bool__ = __refuse
        __array__ = __refuse
        __eq__ = __refuse
        __ne__ = __refuse
        __reduce__ = __refuse
        __reduce_ex__ = __refuse
        __getstate__ = __refuse
        __copy__ = __refuse
        __deepcopy__ = __refuse


def guarded(fn: Callable[[T], U], value: T, *, stage: str) -> U:
    """`fn(value)`, with every exception but `OperationalError` replaced by one without its text, its frames or its causes."""
    try:
        return fn(value)
    except PrivateStageError as error:
        failure: BaseException = PrivateStageError(error.stage, error.kind)
    except OperationalError as error:
        failure = error.with_traceback(None)
    except MemoryError:
        failure = OperationalError(f"{stage} ran out of memory")
    except KeyboardInterrupt:
        failure = KeyboardInterrupt()
    except OSError as error:
        if error.errno in _OPERATIONAL:
            failure = OperationalError(f"{stage} stopped: {os.strerror(error.errno)}")
        else:
            failure = PrivateStageError(stage, type(error).__name__)
    except BaseException as error:  # the text of any exception, SystemExit among them, may hold private values
        failure = PrivateStageError(stage, type(error).__name__)
    del fn, value  # a traceback that shows local variables finds none here
    failure.__cause__ = failure.__context__ = None
    raise failure from None


_OPERATIONAL = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.EIO}
)
"""Failures of the machine, not of a record."""


def open_private(value: Private[T]) -> T:
    """The raw value. Called by the ledger, the gateway and `disclose` only; a test lists every caller."""
    return value._Private__value  # type: ignore[attr-defined]


def disclose(value: Private[T], *, partition: str, why: str, journal: Journal) -> T:
    """The raw value, after a journal line that names the partition and the reason.

    Formal guarantee: none. Whatever is computed from the result is unprotected and stays in `private/`.
    """
    journal.disclosed(partition=partition, why=why)
    return open_private(value)
