"""What goes around every page: the templates, the stylesheet, the policy, and the plots' library where there is one.

Decision: no font, no request, nothing inline but a stylesheet and at most two scripts, which the page's content security
policy names by hash. Every text is escaped, so that a caption written by a model can do nothing but be read.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from . import interactive, wording
from .content import Curve
from .plots import Plot, plot


@dataclass(frozen=True)
class Shell:
    """A page's stylesheet and scripts, and the policy that allows these alone."""

    style: Markup
    scripts: tuple[Markup, ...]
    policy: str


def shell(scripts: tuple[str, ...] = ()) -> Shell:
    """The shell of a page with these scripts."""
    style = _resource("page.css")
    allowed = f" script-src {' '.join(map(_hashed, scripts))};" if scripts else ""
    return Shell(
        style=Markup(style),  # noqa: S704  our own file
        scripts=tuple(Markup(script) for script in scripts),  # noqa: S704  our own file, and the library
        policy=f"default-src 'none'; img-src data:; style-src {_hashed(style)};{allowed} "
        "base-uri 'none'; form-action 'none'",
    )


def page(template: str, *, curves: Iterable[Plot], library: str | None, **values: Any) -> str:
    """A whole page. Scripts are in it only if there is a library and a curve to draw."""
    scripts = (library, _resource("plots.js")) if library is not None and any(curves) else ()
    return _templates().get_template(template).render(shell=shell(scripts), **values)


def drawn(curves: Iterable[Curve], library: str | None) -> tuple[Plot, ...]:
    """The curves that have a point, with what the library draws of them."""
    plots = [each for curve in curves if (each := plot(curve))]
    if library is None:
        return tuple(plots)
    return tuple(dataclasses.replace(each, spec=json.dumps(interactive.spec(each), allow_nan=False)) for each in plots)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_resource),
    )
    environment.filters.update(
        figure=wording.figure,
        bound=wording.bound,
        percent=wording.percent,
        duration=wording.duration,
        short=wording.short,
    )
    return environment


@cache
def _resource(name: str) -> str:
    """A file beside this one, with the line ends that the browser will see when it hashes it."""
    return resources.files(__package__ or "").joinpath(name).read_text("utf-8").replace("\r\n", "\n")


def _hashed(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode('utf-8')).digest()).decode('ascii')}'"
