"""What answers took, for the replies that carry them: only what was consumed now. An answer from the cache took nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ..contract import Usage

MOST = 4096
"""Figures that nobody came for, because the client went away, are forgotten beyond so many."""


class Usages:
    """Filled on the gateway's thread (`heard`), emptied where a reply is made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: OrderedDict[tuple[str, Any], Usage] = OrderedDict()

    def heard(self, role: str, request: Any, usage: Usage, /) -> None:
        with self._lock:
            self._heard[role, request] = usage
            while len(self._heard) > MOST:
                self._heard.popitem(last=False)

    def taken(self, role: str, requests: Sequence[Any]) -> Usage:
        """What these requests took together, since their answers were asked for."""
        with self._lock:
            found = [self._heard.pop((role, request), Usage()) for request in requests]
        return Usage(
            input_tokens=sum(each.input_tokens for each in found),
            output_tokens=sum(each.output_tokens for each in found),
            images=sum(each.images for each in found),
        )
