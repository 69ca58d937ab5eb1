"""Numbers and texts as a reader wants them."""

from __future__ import annotations

import difflib
import math
import re
from decimal import ROUND_CEILING, Decimal

from ..metric import SHARE, Score

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def figure(value: float) -> str:
    """Four significant digits, thousands separated, small and large ones as powers of ten.

    >>> figure(0.86749), figure(12345), figure(1e-5), figure(3.2e-7), figure(2), figure(float("inf"))
    ('0.8675', '12,345', '10⁻⁵', '3.2 × 10⁻⁷', '2', '∞')
    """
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e7):
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        power = "10" + str(int(exponent)).translate(SUPERSCRIPT)
        factor = _trimmed(mantissa)
        return power if factor == "1" else f"{factor} × {power}"
    if size >= 1000:
        return _minus(f"{value:,.0f}")
    return _trimmed(f"{value:.{max(0, 3 - math.floor(math.log10(size))) if size else 0}f}")


def bound(value: float) -> str:
    """As `figure`, but rounded up: a guarantee may not be stated smaller than it is.

    >>> bound(1.00001), bound(0.99996), bound(1.0), bound(3.2001e-7), bound(1e-5)
    ('1.001', '1', '1', '3.201 × 10⁻⁷', '10⁻⁵')
    """
    if not math.isfinite(value) or not value:
        return figure(value)
    exact = Decimal(repr(float(value)))
    return figure(float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 3), rounding=ROUND_CEILING)))


def percent(share: float) -> str:
    """
    >>> percent(0.8675), percent(0.00012), percent(1.0)
    ('86.8 %', '0.012 %', '100 %')
    """
    hundred = share * 100
    return f"{_trimmed(f'{hundred:.1f}') if abs(hundred) >= 0.1 or not hundred else figure(float(f'{hundred:.2g}'))} %"


def in_unit(value: float, score: Score) -> str:
    """A value of the score's kind: its own, or one end of its interval. Shares have one decimal, to be compared in a column."""
    if score.unit == SHARE:
        return f"{_minus(f'{value:.1%}'.removesuffix('%'))} %" if abs(value) >= 0.001 or not value else percent(value)
    return figure(value) + (f" {score.unit}" if score.unit else "")


def short(text: str) -> str:
    """With long digests cut, for headings; the notes below give them in full.

    >>> short("privolve pixels 1-562a2b42486d98f3")
    'privolve pixels 1-562a2b…'
    """
    return re.sub(r"\b([0-9a-f]{6})[0-9a-f]{6,}\b", r"\1…", text)


def duration(seconds: float) -> str:
    """
    >>> duration(4.2), duration(95), duration(7260)
    ('4.2 s', '1 min 35 s', '2 h 1 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def changes(before: str, after: str) -> tuple[tuple[str, bool], ...]:
    """`after` in pieces, each with whether its words are new since `before`.

    >>> changes("a thin slanted seven", "a bold slanted seven, small")
    (('a', False), ('bold', True), ('slanted', False), ('seven, small', True))
    """
    old, new = before.split(), after.split()
    pieces: list[tuple[str, bool]] = []
    for kind, _, _, start, stop in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if stop > start:
            pieces.append((" ".join(new[start:stop]), kind != "equal" and bool(old)))
    return tuple(pieces)


def _trimmed(digits: str) -> str:
    return _minus(digits.rstrip("0").rstrip(".") if "." in digits else digits)


def _minus(digits: str) -> str:
    return digits.replace("-", "−")
