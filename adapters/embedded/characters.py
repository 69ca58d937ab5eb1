"""Names of characters: "3", "digit 3", "three", "capital letter A" are how labels and captions speak of them."""

from __future__ import annotations

import re
import string

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase

_KINDS = r"(?:digit|number|numeral|figure|letter|character|glyph|symbol)"
_CASES = {"capital": str.upper, "uppercase": str.upper, "lowercase": str.lower, "small": str.lower}
_FILLERS = frozenset(
    {"a", "an", "the", "class", "label", "digit", "number", "numeral", "figure", "letter", "character"}
)
_FILLERS |= {"glyph", "symbol"}


def character_of(label: str) -> str | None:
    """The character that a class name means, or None.

    >>> [character_of(name) for name in ("3", "digit 3", "three", "3 - three", "digit_3", "capital letter a", "cat")]
    ['3', '3', '3', '3', '3', 'A', None]
    """
    label = label.strip()
    if len(label) == 1 and label.isprintable():
        return label
    tokens = re.findall(r"[^\W_]+", label)
    cases = [_CASES[token.lower()] for token in tokens if token.lower() in _CASES]
    rest = [token for token in tokens if token.lower() not in _CASES]
    named = [token for token in rest if token.lower() not in _FILLERS]
    # "letter a": the article is the letter.
    if not named and len(rest) > 1 and rest[-1].lower() == "a":
        named = rest[-1:]
    meant = {_of_word(token) for token in named}
    if len(meant) != 1 or None in meant:
        return None
    character = str(meant.pop())
    return cases[0](character) if cases else character


def character_in(text: str) -> str | None:
    """The character that a sentence speaks of, or None.

    In this order: after a word such as "digit" or "letter"; a class name in quotation marks; a digit on its own that
    counts no words; a digit in letters, but "one", which sentences use for other things.

    >>> character_in('Write one sentence of about 9 words on the letter "k".'), character_in("a bold 7 on black")
    ('k', '7')
    """
    words = "|".join(DIGIT_WORDS)
    for found in re.finditer(
        rf"\b(?:(capital|uppercase|lowercase)\s+)?{_KINDS}\s+\W?({words}|[^\W_])(?![^\W_])", text, re.I
    ):
        character = _of_word(found[2])
        if character is not None:
            return _CASES[found[1].lower()](character) if found[1] else character
    for found in re.finditer(r'"([^"]{1,40})"', text):
        character = character_of(found[1])
        if character is not None:
            return character
    alone = re.search(r"(?<![\w.,])(\d)(?!\w|[.,]\d)(?!\s+(?:words?|sentences?|tokens?))", text)
    if alone:
        return alone[1]
    named = re.search(
        rf"\b({'|'.join(word for word in DIGIT_WORDS if word != 'one')})\b(?!\s+(?:words?|sentences?))", text, re.I
    )
    return _of_word(named[1]) if named else None


def name_of(character: str) -> str:
    """How a caption names a character: "digit 3", "capital letter A", "lowercase letter a", "character #"."""
    if character.isdigit():
        return f"digit {character}"
    if character.isalpha():
        return f"{'capital' if character.isupper() else 'lowercase'} letter {character}"
    return f"character {character}"


def _of_word(word: str) -> str | None:
    if len(word) == 1:
        return word
    return str(DIGIT_WORDS.index(word.lower())) if word.lower() in DIGIT_WORDS else None
