"""`privolve ledger`: what a ledger holds, whether any of its runs is finished or not."""

from __future__ import annotations

from pathlib import Path

from ..privacy import ledger_page
from ..privacy.ledger_store import FILE
from .job import InputError


def show(path: Path) -> bool:
    """Print all that the ledger in `path` holds, or a line for each of several below it; True if what was read holds."""
    folders = [path] if (path / FILE).is_file() else sorted(file.parent for file in path.glob(f"*/{FILE}"))
    if not folders:
        raise InputError(
            f"{path}: holds no ledger; name a ledger's folder, such as ledgers/NAME, or the folder above it"
        )
    read = ledger_page.page if len(folders) == 1 else ledger_page.in_a_line
    holds = True
    for folder in folders:
        problems, text = read(folder)
        for line in [*(f"does not hold: {problem}" for problem in problems), *([text] if text else [])]:
            print(line)
        holds = holds and not problems
    return holds
