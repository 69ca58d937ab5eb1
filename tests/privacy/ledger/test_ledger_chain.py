from __future__ import annotations

import dataclasses

import pytest

from privolve.privacy import ledger_chain as chain
from privolve.privacy.ledger_book import Book, Contradiction


@pytest.fixture
def entries(desk):
    ledger = desk.open(records=desk.records())
    ledger.reserve(desk.plan(releases=2))
    desk.release(ledger)
    return ledger.entries()


def test_a_chain_reads_back(entries):
    assert chain.read(b"".join(map(chain.line, entries))) == entries


def test_every_change_of_one_byte_is_found(entries):
    content = b"".join(map(chain.line, entries))
    for place, byte in enumerate(content):
        # Three others a place: a bit, a case or a space, a line.
        for other in {byte ^ 1, byte ^ 32, 10, 13} - {byte}:
            with pytest.raises(chain.ChainBroken):
                chain.read(content[:place] + bytes([other]) + content[place + 1 :])


def test_a_missing_or_added_byte_is_found(entries):
    content = b"".join(map(chain.line, entries))
    for place in range(0, len(content), 7):
        for changed in (content[:place] + content[place + 1 :], content[:place] + b" " + content[place:]):
            with pytest.raises(chain.ChainBroken):
                chain.read(changed)


def test_lines_cannot_be_left_out_swapped_or_repeated(entries):
    lines = list(map(chain.line, entries))
    for changed in (lines[1:], [*lines[:2], *lines[3:]], [lines[1], lines[0], *lines[2:]], [*lines, lines[-1]]):
        with pytest.raises(chain.ChainBroken):
            chain.read(b"".join(changed))


def test_a_commitment_tells_nothing_and_binds(entries):
    salts = bytes(32), b"\1" * 32
    assert len({chain.commitment(salt, {"input": text}) for salt in salts for text in "ab"}) == 4
    with pytest.raises(ValueError, match="salt"):
        chain.commitment(b"short", {})


def test_what_is_no_json_is_not_chained():
    for body in ({"value": float("nan")}, {"value": {1, 2}}, {"value": b"bytes"}):
        with pytest.raises((TypeError, ValueError)):
            chain.link(None, kind="note", run="", body=body)


def rechained(entries, place, **change):
    """The same chain with another body at `place`, and every hash after it made right."""
    made = []
    for number, entry in enumerate(entries):
        body = {**entry.body, **(change if number == place else {})}
        made.append(
            chain.link(made[-1] if made else None, kind=entry.kind, run=entry.run, body=body, private=entry.private)
        )
    return made


def test_a_well_chained_lie_still_breaks_the_rules(entries):
    kinds = [entry.kind for entry in entries]
    assert kinds == ["created", "opened", "plan", "charge", "release"]
    charge, release = kinds.index("charge"), kinds.index("release")
    cost = entries[charge].body["cost"]
    lies = [
        rechained(entries, charge, cost={**cost, "scale": cost["scale"] * 2}),
        rechained(entries, charge, name="run/histogram/9"),
        rechained(entries, charge, plan="0" * 64),
        rechained(entries, charge, attempt=2),
        rechained(entries, release, name="run/histogram/1"),
        rechained(entries, kinds.index("plan"), figures_before=3),
        rechained(entries, 0, delta=1e-9),
        rechained(entries, 0, total=[0.5, 1e-5]),
        rechained([*entries[:charge], *entries[release:]], 0),
        rechained([*entries, entries[release]], 0),
        rechained([*entries, entries[charge]], 0),
        rechained([*entries, dataclasses.replace(entries[charge], kind="gift")], 0),
        rechained([*entries, entries[kinds.index("plan")]], 0),
        rechained([*entries, entries[0]], 0),
        rechained(entries[1:], 0),
    ]
    Book(rechained(entries, 0))
    for lie in lies:
        with pytest.raises(Contradiction):
            Book(lie)
