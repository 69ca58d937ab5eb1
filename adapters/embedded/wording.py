"""Glyphs in plain English: which words stand for which parameters, how captions are put together and read.

The lexicon writes with these words, the painter and the captioner read them. A caption says what is unusual about a
glyph and is silent about the rest; words that are not of this vocabulary are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from .characters import character_in, name_of
from .draws import Stream

BLANK = "_"


@dataclass(frozen=True, kw_only=True)
class Level:
    """A value of a parameter and the phrases that mean it, the plainest first."""

    value: float
    phrases: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A parameter as a caption sees it: a few levels, of which the usual one is mostly left unsaid."""

    parameter: str
    usual: int
    levels: tuple[Level, ...]
    before: bool = False
    """Whether its phrases are adjectives, which stand before the character's name."""


Attributes = Mapping[str, int]
"""What a caption says: parameter to index of level."""


def _attribute(parameter: str, usual: int, *levels: tuple[float, str], before: bool = False) -> Attribute:
    parsed = tuple(Level(value=value, phrases=tuple(words.split(" / "))) for value, words in levels)
    return Attribute(parameter=parameter, usual=usual, levels=parsed, before=before)


ATTRIBUTES: tuple[Attribute, ...] = (
    _attribute(
        "size",
        2,
        (0.48, "tiny / minute / very small"),
        (0.6, "small / little / smallish"),
        (0.72, "medium-sized / average-sized / mid-sized"),
        (0.84, "large / big / sizeable"),
        (0.97, "huge / enormous / very large / image-filling"),
        before=True,
    ),
    _attribute(
        "weight",
        2,
        (0.03, "hairline / spidery / very thin"),
        (0.045, "thin / light / fine-lined"),
        (0.063, "medium-weight / regular-weight"),
        (0.085, "bold / thick / strong-lined"),
        (0.115, "heavy / fat / very bold"),
        before=True,
    ),
    _attribute(
        "stretch",
        2,
        (0.55, "very narrow / squeezed / needle-narrow"),
        (0.75, "narrow / slim / condensed"),
        (1.0, "well-proportioned / normally wide"),
        (1.25, "wide / broad / expanded"),
        (1.5, "very wide / sprawling / stretched-out"),
        before=True,
    ),
    _attribute(
        "slant",
        1,
        (-14.0, "left-leaning / backslanted / backward-leaning"),
        (0.0, "upright / unslanted"),
        (12.0, "slightly slanted / right-leaning / gently slanted"),
        (23.0, "slanted / sloping / forward-leaning"),
        (34.0, "strongly slanted / steeply slanted / very slanted"),
        before=True,
    ),
    _attribute(
        "font",
        0,
        (0.0, "in a sans-serif font / in a plain typeface / in sans-serif type"),
        (1.0, "in a serif font / in a seriffed typeface / in serif type"),
        (2.0, "in a book font / in a roman typeface / in newspaper type"),
        (3.0, "in a typewriter font / in a monospaced typeface / in typewriter type"),
        (4.0, "in an italic font / in a cursive typeface / in italic type"),
    ),
    _attribute(
        "stroke",
        1,
        (0.0, "with thick and thin strokes / with contrasting strokes"),
        (0.5, "with ordinary strokes"),
        (1.0, "with even strokes / drawn with a pen / with monoline strokes"),
    ),
    _attribute(
        "rotation",
        2,
        (-18.0, "turned clockwise / rotated clockwise / tipped clockwise"),
        (-9.0, "turned slightly clockwise / rotated slightly clockwise / tipped gently clockwise"),
        (0.0, "standing straight / not turned"),
        (9.0, "turned slightly anticlockwise / rotated slightly counterclockwise / tipped gently anticlockwise"),
        (18.0, "turned anticlockwise / rotated counterclockwise / tipped anticlockwise"),
    ),
    _attribute(
        "bend",
        1,
        (-0.12, "bulging to the right / bowed to the right"),
        (0.0, "with a straight spine"),
        (0.12, "bulging to the left / bowed to the left"),
    ),
    _attribute(
        "wave",
        1,
        (-0.08, "swaying to the left / with a reversed s-curve"),
        (0.0, "without any sway"),
        (0.08, "swaying to the right / with an s-curve"),
    ),
    _attribute(
        "taper",
        1,
        (-0.3, "broadening towards the bottom / bottom-heavy in width"),
        (0.0, "as broad above as below"),
        (0.3, "broadening towards the top / top-heavy in width"),
    ),
    _attribute(
        "waist",
        1,
        (-0.1, "with a low waist / with a low middle"),
        (0.0, "with its waist halfway"),
        (0.1, "with a high waist / with a high middle"),
    ),
    _attribute(
        "x",
        2,
        (-0.12, "shifted far to the left / moved far to the left"),
        (-0.05, "shifted to the left / moved leftwards / placed to the left"),
        (0.0, "centred from side to side / centered horizontally"),
        (0.05, "shifted to the right / moved rightwards / placed to the right"),
        (0.12, "shifted far to the right / moved far to the right"),
    ),
    _attribute(
        "y",
        2,
        (-0.12, "shifted far upwards / moved far upwards"),
        (-0.05, "shifted upwards / moved upwards / placed towards the top"),
        (0.0, "centred in height / centered vertically"),
        (0.05, "shifted downwards / moved downwards / placed towards the bottom"),
        (0.12, "shifted far downwards / moved far downwards"),
    ),
    _attribute(
        "blur",
        1,
        (0.0, "with crisp edges / with sharp edges / in sharp focus"),
        (0.025, "with clean edges"),
        (0.06, "with soft edges / with softened edges / in soft focus"),
        (0.11, "with blurred edges / with fuzzy edges / out of focus"),
    ),
)

BY_PARAMETER = {attribute.parameter: attribute for attribute in ATTRIBUTES}

FONT_FAMILIES: tuple[tuple[str, ...], ...] = (
    ("DejaVuSans", "cmss10", "Aileron", "DejaVuSans-Bold"),
    ("DejaVuSerif", "DejaVuSerif-Bold"),
    ("STIXGeneral", "STIXGeneralBol", "cmr10", "cmb10"),
    ("DejaVuSansMono", "cmtt10", "DejaVuSansMono-Bold"),
    ("cmti10", "STIXGeneralItalic", "cmmi10", "DejaVuSerif-Italic", "STIXGeneralBolIta"),
)
"""The faces of each level of the attribute `font`."""

# Words that say too little to tell a phrase by, when all its others are blank.
_WEAK = frozenset(
    ("a", "an", "the", "to", "in", "with", "at", "of", "and", "is", "its", "not", "by", "as", "any", "very")
)
_WORD = re.compile(r"[\w'-]+|[^\w\s]")
_WORDS_OF_A_PHRASE = 2.5


def read(caption: str) -> tuple[str | None, Attributes]:
    """The character and the attributes that a caption speaks of; the later of two words for one thing counts.

    >>> read("A bold, slanted digit 3 in a serif font.")
    ('3', {'weight': 3, 'slant': 3, 'font': 1})
    """
    tokens = _tokens(caption)
    said = {parameter: level for _, _, parameter, level in _said(tokens)}
    return character_in(caption), said


def fill(masked: str, stream: Stream) -> tuple[str | None, dict[str, int]]:
    """What a caption with blanks may have said: words that are left keep their meaning, blanks are filled in context.

    Where some words of a phrase are left, the blanks between them get the words of a phrase that has them in these
    places; blanks without such a neighbour get attributes of which nothing is said, one for every two or three.
    """
    tokens = _tokens(masked)
    used = [False] * len(tokens)
    said: dict[str, int] = {}
    for start, length, parameter, level in _said(tokens):
        said[parameter] = level
        used[start : start + length] = [True] * length
    for place, token in enumerate(tokens):
        fitting = _fitting(tokens, used, place, said) if token not in _WEAK and not used[place] else []
        if fitting:
            start, phrase, parameter, level = stream.pick(fitting)
            said[parameter] = level
            used[start : start + len(phrase)] = [True] * len(phrase)
    blanks = sum(token == BLANK and not taken for token, taken in zip(tokens, used, strict=True))
    unsaid = stream.shuffled([attribute for attribute in ATTRIBUTES if attribute.parameter not in said])
    for attribute in unsaid[: int(blanks / _WORDS_OF_A_PHRASE + stream.uniform())]:
        said[attribute.parameter] = any_level(attribute, stream)
    return character_in(masked), said


def any_level(attribute: Attribute, stream: Stream) -> int:
    """A level other than the usual one."""
    return stream.pick([level for level in range(len(attribute.levels)) if level != attribute.usual])


def compose(character: str, said: Attributes, stream: Stream) -> str:
    """A caption that says these attributes, in words and an order that the stream chooses.

    >>> compose("3", {"weight": 3, "font": 1}, Stream("docs"))
    'A thick digit 3 in a serif font.'
    """
    phrases = {name: stream.pick(BY_PARAMETER[name].levels[level].phrases) for name, level in said.items()}
    before = stream.shuffled([phrase for name, phrase in phrases.items() if BY_PARAMETER[name].before])
    after = stream.shuffled([phrase for name, phrase in phrases.items() if not BY_PARAMETER[name].before])
    noun = " ".join(part for part in (", ".join(before), name_of(character)) if part)
    form = stream.pick(("plain", "image", "bare", "relative"))
    if form == "relative" and before:
        noun = f"{name_of(character)} that is {_listed(before)}"
    start = {"image": f"An image of {_article(noun)} {noun}", "bare": noun}.get(form, f"{_article(noun)} {noun}")
    text = (
        ", ".join([start, *after])
        if form == "relative" or not after or stream.chance(0.5)
        else f"{start} {_listed(after)}"
    )
    return text[0].upper() + text[1:] + "."


def _article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeiou" else "a"


def _listed(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _tokens(text: str) -> list[str]:
    return [token.lower() for token in _WORD.findall(text)]


@cache
def _phrases() -> tuple[tuple[tuple[str, ...], str, int], ...]:
    """Every phrase as tokens with its meaning, longest first."""
    found = [
        (tuple(_tokens(phrase)), attribute.parameter, index)
        for attribute in ATTRIBUTES
        for index, level in enumerate(attribute.levels)
        for phrase in level.phrases
    ]
    return tuple(sorted(found, key=lambda entry: -len(entry[0])))


@cache
def _phrases_by_first_word() -> Mapping[str, tuple[tuple[tuple[str, ...], str, int], ...]]:
    table: dict[str, list[tuple[tuple[str, ...], str, int]]] = {}
    for entry in _phrases():
        table.setdefault(entry[0][0], []).append(entry)
    return {word: tuple(entries) for word, entries in table.items()}


def _said(tokens: Sequence[str]) -> list[tuple[int, int, str, int]]:
    """Whole phrases in reading order, the longest wherever several begin: (start, length, parameter, level)."""
    found: list[tuple[int, int, str, int]] = []
    start = 0
    while start < len(tokens):
        for phrase, parameter, level in _phrases_by_first_word().get(tokens[start], ()):
            if tuple(tokens[start : start + len(phrase)]) == phrase:
                found.append((start, len(phrase), parameter, level))
                start += len(phrase) - 1
                break
        start += 1
    return found


@cache
def _phrases_by_word() -> Mapping[str, tuple[tuple[int, tuple[str, ...], str, int], ...]]:
    """The phrases that have a word, each after the word's place in it."""
    table: dict[str, list[tuple[int, tuple[str, ...], str, int]]] = {}
    for phrase, parameter, level in _phrases():
        for place, word in enumerate(phrase):
            table.setdefault(word, []).append((place, phrase, parameter, level))
    return {word: tuple(entries) for word, entries in table.items()}


def _fitting(
    tokens: Sequence[str], used: Sequence[bool], place: int, said: Attributes
) -> list[tuple[int, tuple[str, ...], str, int]]:
    """What the word at `place` and the blanks around it may be: phrases on things unsaid, with most words left."""
    most, fitting = 0, []
    for before, phrase, parameter, level in _phrases_by_word().get(tokens[place], ()):
        start, end = place - before, place - before + len(phrase)
        if parameter in said or start < 0 or end > len(tokens) or any(used[start:end]):
            continue
        if any(token not in (BLANK, word) for token, word in zip(tokens[start:end], phrase, strict=True)):
            continue
        left = sum(token != BLANK for token in tokens[start:end])
        if left > most:
            most, fitting = left, []
        if left == most:
            fitting.append((start, phrase, parameter, level))
    return fitting
