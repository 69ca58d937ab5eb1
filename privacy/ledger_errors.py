"""What the ledger refuses, and why: one line each, with where, what and the way out.

LedgerError
├── BudgetExceeded      a share, a total or a fourth attempt is not covered; nothing was read
├── PlanChanged         a plan, or the cost of one of its releases, differs from what was reserved
├── NotPlanned          no reserved plan names this release
├── BindingChanged      a name was used before for another question, input, mechanism or version
├── TermsDiffer         the ledger was made with other slots, unit, relation, delta, total, purpose or name
├── SetOverlaps         the records of a new ledger are partly those of another one
├── RolledBack          the ledger does not hold a head that a run saw
├── LedgerBusy          another process writes to it
├── LedgerDamaged       what is stored contradicts itself
└── LedgerWriteError    it could not be written (also an OperationalError); nothing stored is lost
"""

from __future__ import annotations

from .private import OperationalError


class LedgerError(ValueError):
    """The ledger refuses; the message is one public line."""


class BudgetExceeded(LedgerError):
    """Not covered by the share or the total; nothing was read or charged."""


class PlanChanged(LedgerError):
    """Differs from the plan that was reserved."""


class NotPlanned(LedgerError):
    """No reserved plan names this release."""


class BindingChanged(LedgerError):
    """The name is bound to another question, input, mechanism or version."""


class TermsDiffer(LedgerError):
    """The ledger was made on other terms."""


class SetOverlaps(LedgerError):
    """The records are partly those of another ledger of the same root."""


class RolledBack(LedgerError):
    """An older copy of the ledger has taken its place."""


class LedgerBusy(LedgerError):
    """Another process holds the ledger."""


class LedgerDamaged(LedgerError):
    """What is stored contradicts itself."""


class LedgerWriteError(LedgerError, OperationalError):
    """The ledger could not be written. No record can choose this, and what was stored before is still there."""
