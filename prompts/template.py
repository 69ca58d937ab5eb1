"""Prompts as data: a TOML file is a template, its digest says which wording was used.

    provenance = "author-written"        # who wrote the wording
    domain = "glyphs"                    # what it is for
    kind = "vary"                        # caption, initial or vary
    [lists]                              # optional: one value of each is drawn, all equally likely
    manner = ["shortly", "plainly"]
    [defaults]                           # optional: for placeholders that the caller may leave out
    subject = "a picture"
    [[messages]]
    role = "user"
    content = "Rephrase {manner}, in about {word_count} words.\\nText: {sample}"

`{name}` is a value given by the caller or a list of the file, nothing else: no attributes, no formats. `{{` and `}}`
are braces. A value is put in as it is; braces in it are only text.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from .reply import cleaned

KINDS = ("caption", "initial", "vary")
ROLES = ("system", "user", "assistant")
VALUES = ("label", "sample", "masked_sample", "word_count", "subject")
"""What a caller may give: the class name, the parent's text, the same with blanks, a number of words, the topic."""

_FOLDER = Path(__file__).parent
_PIECE = re.compile(r"\{\{|\}\}|\{([a-z][a-z_]*)\}|[{}]")


class PromptError(ValueError):
    """A template that cannot be used; the message is one line that says where, what and the way out."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """Messages with placeholders. `digest` is the SHA-256 of what the file says, whatever its layout and comments."""

    name: str
    digest: str
    provenance: str
    domain: str
    kind: str
    messages: tuple[tuple[str, str], ...]
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)

    @property
    def placeholders(self) -> frozenset[str]:
        """The values that `render` uses, defaults among them."""
        return frozenset(name for _, content in self.messages for name in _names(content)) - frozenset(self.lists)

    @property
    def required(self) -> frozenset[str]:
        """The values that `render` cannot do without."""
        return self.placeholders - frozenset(self.defaults)

    def render(self, values: Mapping[str, str], rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
        """The messages as (role, content), with `values` put in and one value of each list drawn.

        Values that the template does not use are passed over, so that one caller serves all templates of a kind.
        """
        missing = sorted(self.required - set(values))
        if missing:
            raise PromptError(
                f"prompt {self.name!r} needs a value for {', '.join(missing)}; it was given {sorted(values)}"
            )
        drawn = {name: options[int(rng.integers(len(options)))] for name, options in sorted(self.lists.items())}
        known = {**self.defaults, **values, **drawn}
        return tuple((role, _filled(content, known)) for role, content in self.messages)

    def parse(self, reply: str) -> str:
        """The text of a reply, without its wrapping; "" where there is none, as in a refusal."""
        return cleaned(reply)


def load(name_or_path: str | Path) -> Template:
    """A template of this package by name ("vary/glyphs-fill"), or of a file by a path that ends in .toml."""
    name = str(name_or_path)
    path = Path(name_or_path) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    if not name.endswith(".toml") and name not in names():
        raise PromptError(f"there is no prompt {name!r}; there are {', '.join(names())}, or the path of a .toml file")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PromptError(f"prompt {name!r} cannot be read: {' '.join(str(error).split())}") from None
    return _template(name, table)


def names() -> tuple[str, ...]:
    """The templates of this package."""
    return tuple(sorted(str(path.relative_to(_FOLDER).with_suffix("").as_posix()) for path in _FOLDER.glob("*/*.toml")))


def _template(name: str, table: Mapping[str, Any]) -> Template:
    def refuse(what: str) -> PromptError:
        return PromptError(f"prompt {name!r}: {what}")

    known = ("provenance", "domain", "kind", "lists", "defaults", "messages")
    if unknown := sorted(set(table) - set(known)):
        raise refuse(f"unknown key {unknown[0]!r}; known are {', '.join(known)}")
    for key in ("provenance", "domain", "kind"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise refuse(f"{key!r} is missing; give it as text")
    if table["kind"] not in KINDS:
        raise refuse(f"kind {table['kind']!r} is none of {', '.join(KINDS)}")
    messages = table.get("messages")
    if not isinstance(messages, list) or not messages:
        raise refuse("it has no [[messages]]; give at least one with role and content")
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"} or message["role"] not in ROLES:
            raise refuse(f"a message has a role ({', '.join(ROLES)}) and a content, and nothing else")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise refuse("a message's content is text, and not empty")
    if messages[-1]["role"] != "user":
        raise refuse("the last message is the user's, or there is nothing to answer")
    lists, defaults = table.get("lists", {}), table.get("defaults", {})
    for key, options in lists.items():
        if not isinstance(options, list) or not options or not all(isinstance(option, str) for option in options):
            raise refuse(f"list {key!r} is a list of texts, and not empty")
    if both := sorted(set(lists) & set(VALUES)):
        raise refuse(f"list {both[0]!r} has the name of a value that callers give; call it something else")
    for key, value in defaults.items():
        if key not in VALUES or not isinstance(value, str):
            raise refuse(f"default {key!r} is a text for one of {', '.join(VALUES)}")
    try:
        used = {used for message in messages for used in _names(message["content"])}
    except PromptError as error:
        raise refuse(str(error)) from None
    if unknown := sorted(used - set(VALUES) - set(lists)):
        raise refuse(f"unknown placeholder {{{unknown[0]}}}; known are {', '.join((*VALUES, *sorted(lists)))}")
    if unused := sorted((set(lists) | set(defaults)) - used):
        raise refuse(f"{unused[0]!r} is used in no message; remove it, or write {{{unused[0]}}} where it belongs")
    canonical = json.dumps(table, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return Template(
        name=name,
        digest=hashlib.sha256(canonical.encode()).hexdigest(),
        provenance=table["provenance"],
        domain=table["domain"],
        kind=table["kind"],
        messages=tuple((message["role"], message["content"].strip()) for message in messages),
        lists=MappingProxyType({key: tuple(options) for key, options in lists.items()}),
        defaults=MappingProxyType(dict(defaults)),
    )


def _names(content: str) -> list[str]:
    pieces = [(found[0], found[1]) for found in _PIECE.finditer(content)]
    if stray := [text for text, name in pieces if text in ("{", "}")]:
        raise PromptError(f"a {stray[0]} that belongs to no placeholder; write {stray[0] * 2} for a brace")
    return [name for _, name in pieces if name]


def _filled(content: str, values: Mapping[str, str]) -> str:
    return _PIECE.sub(lambda found: str(values[found[1]]) if found[1] else found[0][0], content)
