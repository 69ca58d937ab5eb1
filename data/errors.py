"""What may be wrong with a declared set, found before its slots are counted.

    DataError
    ├── UnknownKind      no such source
    ├── Unreadable       the path: missing, no permission, a symbolic link, of the wrong type, too large
    ├── Damaged          the container: not what it says it is, a missing key or column, a wrong type
    └── Undeclared       the declaration: missing, or not what the set holds

Every message is one line that names the place, what is wrong and the way out, and repeats no record: no file name below
the declared path, no content. After the slots are counted a record that cannot be used is a ghost, never an error.
"""

from __future__ import annotations


class DataError(ValueError):
    """A private set cannot be used as declared."""


class UnknownKind(DataError):
    """No source of this kind is installed."""


class Unreadable(DataError):
    """The declared path cannot be read."""


class Damaged(DataError):
    """A whole container (npz, idx, csv) is not what it should be."""


class Undeclared(DataError):
    """Classes, size, channels or count are not declared, or the set contradicts them."""
