"""Figures as they are read: a claim is rounded up, what is left of it down, and one of a kind is in the singular."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def shown(value: float | str) -> str:
    """Five significant digits, rounded up: a claim is never smaller than what is known.

    >>> shown(0.999_951), shown(1e-5), shown("Infinity")
    ('0.99996', '1e-05', 'infinity')
    """
    number = float(value)
    if number == math.inf:
        return "infinity"
    return f"{float(Decimal(repr(number)).normalize(Context(prec=5, rounding=ROUND_CEILING))):.5g}"


def left(value: float) -> str:
    """Five significant digits, rounded down: what is shown can be spent.

    >>> left(5.072_05), left(1e-5)
    ('5.072', '1e-05')
    """
    return f"{float(Decimal(repr(float(value))).normalize(Context(prec=5, rounding=ROUND_FLOOR))):.5g}"


def counted(number: int, noun: str) -> str:
    """How many there are of what `noun` names.

    >>> counted(1, "class"), counted(2, "class"), counted(1_438, "entry"), counted(0, "time")
    ('1 class', '2 classes', '1,438 entries', '0 times')
    """
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {plural}"
