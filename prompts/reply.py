"""What a writer's reply says, without what models wrap it in."""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.S | re.I)
_FENCE = re.compile(r"^```[\w-]*[ \t]*\n(.*?)\n?```$", re.S)
_TEXT = (
    r"""(?:caption|text|description|answer|output|result|response|rephrasing|version|paragraph|sentence|passage)s?"""
)
_HEADER = re.compile(
    rf"""^(?:
        (?:sure|certainly|of\ course|absolutely|okay|ok)(?:\ thing)?[!.,:]*(?:\s*\n\s*|\s+(?=here\b|below\b))
        | (?:here(?:\ is|\ are|'s|’s)|below\ is)\b[^\n:.]{{0,100}}\b{_TEXT}\b[^\n:.]{{0,60}}:\s*
        | (?:here\ it\ is|here\ you\ go)\s*[:!.]\s*
        | (?:the\ |a\ |my\ )?(?:(?:new|revised|rephrased|rewritten|completed|filled(?:-in)?|short)\ )*{_TEXT}\s*:\s*
    )""",
    re.I | re.X,
)
# A review may begin with "I can't" or "Sorry"; what makes a refusal is that it then speaks of the request.
_CANNOT = r"""(?:can\s?not|can['’]t|could\ not|won['’]t|will\ not|unable\ to|not\ able\ to|must\ decline\ to)"""
_REFUSAL = re.compile(
    rf"""^(?:
        (?:i\ am|i['’]m)?\s*(?:very\ |so\ |really\ )?(?:sorry|apologies)\W*$
        | (?=(?:(?:i\ am|i['’]m)?\s*(?:very\ |so\ |really\ )?sorry|(?:my\ )?apologies|i\ apologi[sz]e|unfortunately
              |as\ an?\ |i\ )\b)
          .{{0,120}}?\b(?:
            {_CANNOT}\ (?:\w+\ )?(?:assist|help|comply|fulfil+|provide|create|generate|write|describe|caption
              |answer|continue|do|see|view|rephrase|complete|process|identify)\b
            | (?:this|that|your)\ request\b
            | language\ model\b
            | as\ an?\ (?:ai|artificial)\b
          )
    )""",
    re.I | re.X | re.S,
)
_COUNT = re.compile(r"[\s(\[]*(?:word\s+count\s*:?\s*\d+|(?:exactly\s+|about\s+)?\d+\s+words)[\s)\].]*$", re.I)
_BULLET = re.compile(r"^\s*(?:#{1,6}\s+|[-*•]\s+|\d{1,2}[.)]\s+|>\s+)", re.M)
_EMPHASIS = re.compile(r"(\*\*|__|\*|`)(?=\S)(.+?)(?<=\S)\1")
_QUOTES = ('""', "''", "“”", "‘’", "«»", "„“")
_BLANK = re.compile(r"(?<!\w)_+(?!\w)")


def cleaned(reply: str) -> str:
    """The text alone on one line: no thoughts, headers, markdown, outer quotes, word counts or blanks left over.

    "" for a refusal, so that a caller has one thing to check.

    >>> cleaned('Sure! Here is a caption:\\n\\n**"A small 3."**'), cleaned("I'm sorry, I can't help with that.")
    ('A small 3.', '')
    """
    text = _THOUGHT.sub("", reply).strip()
    if "<think" in text.lower():
        return ""
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    before = None
    while before != text:
        before = text
        text = _EMPHASIS.sub(r"\2", _BULLET.sub("", text)).strip()
        if _REFUSAL.match(text):
            return ""
        text = _unquoted(_HEADER.sub("", text, count=1).strip())
    text = _BLANK.sub(" ", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split()))
    shorter = _COUNT.sub("", text)
    # A count in brackets or after the last sentence is the model's own; one within a sentence is the text's.
    if shorter and (shorter[-1] in ".!?\"'”" or text.endswith((")", "]"))):
        text = shorter
    return text if any(character.isalnum() for character in text) else ""


def _unquoted(text: str) -> str:
    for opening, closing in _QUOTES:
        if len(text) > 1 and text[0] == opening and text[-1] == closing:
            inner = text[1:-1]
            if opening not in inner and closing not in inner:
                return inner.strip()
    return text
