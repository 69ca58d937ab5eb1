"""The certificate: what may be claimed of everything that was released, with its assumptions, as text and as JSON.

It is a function of the chain so far, of the hashes of the files that are published, and of what the run declares, so
that anyone who has the published folder can make it again and compare. The chain's last entry holds its hash: a changed
byte of chain, certificate or listed file is found without the ledger, and a chain rewritten as a whole with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, cast

from . import ledger_chain as chain
from . import ledger_page
from .durable import write_bytes
from .failpoint import failpoint
from .ledger import Ledger
from .ledger_book import Book
from .ledger_chain import ChainBroken, Entry
from .ledger_errors import LedgerError
from .ledger_store import read_entries
from .mechanism import JSON, Relation, SampledGaussian
from .private import OperationalError
from .words import counted, left, shown

CHAIN_FILE, TEXT_FILE, FILE = "ledger.jsonl", "privacy.txt", "privacy.json"

DECLARED = ("commit", "versions", "public", "models", "prompts", "egress", "assumptions")
"""What a run declares beside its releases; all optional:

commit (str, of the code), versions ({name: version}), public (what is public by declaration: "class list", "label shares
(released)", ...), models (which models were used, where they come from), prompts ([{"name", "digest", "provenance"}]),
egress ([{"role", ...}]: what left for a remote adapter by the operator's trust), assumptions ([str]).
"""

_PUBLIC = ("class list", "image size", "split rule")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What may be claimed. `document` is `privacy.json`; epsilon is infinite where nothing may be claimed."""

    epsilon: float
    delta: float
    claim: str
    document: Mapping[str, Any] = field(repr=False)

    @property
    def text(self) -> str:
        """The certificate for a reader: `privacy.txt`."""
        return _text(self.document)


def draft(ledger: Ledger, run: str, *, manifest: Mapping[str, JSON]) -> Certificate:
    """The certificate as of now, before anything is published: for the report, and for the end of a run."""
    return _certificate(_document(ledger.entries(), run, {}, manifest))


def write(
    ledger: Ledger, run: str, *, release_dir: Path, artefacts: Mapping[str, Path], manifest: Mapping[str, JSON]
) -> Certificate:
    """Certify a run: chain the certificate's hash, then write ledger.jsonl, privacy.txt and, last, privacy.json.

    `artefacts` are the published files by their paths from the run folder, which holds `release_dir`. Called again with
    nothing changed it writes the same bytes and no entry, even if other runs used the ledger meanwhile.
    """
    hashes = {_relative(name): _file_hash(path) for name, path in artefacts.items()}
    entries = ledger.entries()
    standing = _standing(entries, run, hashes, manifest)
    if standing is None:
        document = _document(entries, run, hashes, manifest)
        last = ledger.certified(run, _hashes(document))
        entries.append(last)
    else:
        document, entries = standing
    failpoint("statement-after-entry")
    try:
        release_dir.mkdir(parents=True, exist_ok=True)
        write_bytes(release_dir / CHAIN_FILE, b"".join(map(chain.line, entries)))
        failpoint("statement-after-chain")
        write_bytes(release_dir / TEXT_FILE, _text(document).encode())
        write_bytes(release_dir / FILE, _json(document))
    except OSError as error:
        raise OperationalError(
            f"{release_dir}: the certificate could not be written ({error.strerror}). Make room, then give the same command "
            "again; the ledger is safe."
        ) from None
    return _certificate(document)


def verify(run_dir: Path) -> list[str]:
    """Why the certificate of a run does not hold, one line a problem with the file's name; empty if it holds.

    Reads the published files alone: the claim as of its head. Recomputes hashes, the ledger's rules, and every epsilon.
    """
    release = Path(run_dir) / "release"
    contents: dict[str, bytes] = {}
    for name in (CHAIN_FILE, FILE, TEXT_FILE):
        try:
            contents[name] = (release / name).read_bytes()
        except OSError as error:
            return [f"release/{name}: cannot be read ({error.strerror})"]

    # The chain, which everything else hangs on.
    try:
        entries = chain.read(contents[CHAIN_FILE])
        book = Book(entries[:-1])
        last = entries[-1]
        certified = {key: str(last.body[key]) for key in ("certificate", "text")}
        if last.kind != "certified":
            return [f"release/{CHAIN_FILE}: line {last.seq} should certify this run, but is of kind {last.kind!r}"]
    except ChainBroken as error:
        return [f"release/{CHAIN_FILE}: {error}", *_changed_artefacts(Path(run_dir), contents[FILE])]
    except (ValueError, LookupError) as error:
        return [f"release/{CHAIN_FILE}: does not hold a certified run ({error})"]

    # The certificate and its text, by their hashes.
    problems: list[str] = []
    for name, kind in ((FILE, "certificate"), (TEXT_FILE, "text")):
        if hashlib.sha256(contents[name]).hexdigest() != certified[kind]:
            problems.append(f"release/{name}: is not the {kind} that was certified")
    if problems:
        return problems

    # Its files, and its figures made again from the events.
    problems += _changed_artefacts(Path(run_dir), contents[FILE])
    try:
        document: dict[str, Any] = json.loads(contents[FILE])
        if document["run"] != last.run:
            problems.append(f"release/{FILE}: is of run {document['run']!r}, but the chain certifies {last.run!r}")
        problems += ledger_page.above_shares(book, f"release/{CHAIN_FILE}")
        again = _document(entries[:-1], document["run"], document["artefacts"], document["manifest"])
        problems += [f"release/{FILE}: {difference}" for difference in _differences(document, again)]
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        problems.append(f"release/{FILE}: its figures cannot be made again from the chain ({error})")
    return problems


def summary(run_dir: Path) -> str:
    """The claim of a certificate that `verify` found to hold, and the table of its run."""
    document: dict[str, Any] = json.loads((Path(run_dir) / "release" / FILE).read_bytes())
    return "\n".join([*_wrapped(document["claim"]), "", *_table(document)])


def verify_ledger(run_dir: Path, ledger_dir: Path) -> tuple[list[str], str]:
    """The problems of `verify` and those of the run's chain against the live ledger, and what may be claimed by now."""
    problems = verify(run_dir)
    try:
        live = read_entries(Path(ledger_dir))
        book = Book(live)
    except ValueError as error:
        return [*problems, f"{ledger_dir}: {error}"], ""
    if not live:
        return [*problems, f"{ledger_dir}: the chain is empty"], ""
    try:
        copy = chain.read((Path(run_dir) / "release" / CHAIN_FILE).read_bytes())
    except (OSError, ChainBroken):
        copy = []  # Said above.
    for ours, theirs in zip(copy, live, strict=False):
        if ours.hash != theirs.hash:
            problems.append(
                f"{ledger_dir}: parts from the chain of this run at entry {ours.seq}: another ledger, or one that was "
                "rolled back and used again"
            )
            break
    else:
        if len(live) < len(copy):
            problems.append(f"{ledger_dir}: ends before the chain of this run; it was rolled back")
    problems += ledger_page.above_shares(book, ledger_dir)
    return problems, "\n".join(ledger_page.as_of_now(live, book))


# --- the document -----------------------------------------------------------------------------------------------------


def _document(
    entries: Sequence[Entry], run: str, artefacts: Mapping[str, str], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """`privacy.json`, from the entries before its own and nothing that differs between two readers."""
    book = Book(entries)
    terms = book.terms
    if run not in book.plans:
        raise LedgerError(f"run {run} has no plan in this ledger, so that there is nothing to certify.")
    if unknown := sorted(set(manifest) - set(DECLARED)):
        raise LedgerError(
            f"a certificate declares nothing called {', '.join(unknown)}; it knows {', '.join(DECLARED)}."
        )
    plan, partition = book.plans[run].plan, book.plans[run].plan.partition
    alone, maximum = ledger_page.alone(book, run), ledger_page.maximum(book)
    stated = alone if terms.purpose == "benchmark" else maximum
    releases = ledger_page.every_release(book)
    document: dict[str, Any] = {
        "format": 1,
        "claim": "",
        "epsilon": stated["epsilon"],
        "delta": stated["delta"],
        "replace_one": {"epsilon": stated["replace_one"], "delta": stated["delta"]},
        "relation": str(terms.relation),
        "unit": terms.unit,
        "slots": terms.slots,
        "purpose": terms.purpose,
        "run": run,
        "partition": partition,
        "this_run": alone,
        "together": ledger_page.together(book, partition),
        "partitions": [ledger_page.together(book, name) for name in book.partitions],
        "maximum": maximum,
        "runs": ledger_page.every_run(book),
        "sums_of_shares": ledger_page.sums(book.spent(partition)),
        "releases": releases,
        "ledger": {
            "id": terms.ledger,
            "entries": len(entries),
            "head": entries[-1].hash,
            "delta": terms.delta,
            "total": None if terms.total is None else ledger_page.pair(*terms.total),
        },
        "noise": {"sources": _unique(release["noise"] for release in releases), "kind": _noise(book)},
        "unprotected_figures": {
            "before_this_plan": book.plans[run].figures_before,
            "shown_by_now": book.figures_shown(partition),
        },
        "code": _last(releases, run, "code"),
        "libraries": _last(releases, run, "libraries"),
        "egress": _unique([*(note.body for note in book.notes if note.kind == "egress"), *manifest.get("egress", ())]),
        "assumptions": _unique(
            [*(note.body["text"] for note in book.notes if note.kind == "assumption"), *manifest.get("assumptions", ())]
        ),
        "events": len(plan.releases),
        "manifest": dict(manifest),
        "artefacts": dict(artefacts),
    }
    document["claim"] = _claim(document)
    # As it will be read back.
    return json.loads(chain.canonical(document))


def _last(releases: Sequence[Mapping[str, Any]], run: str, key: str) -> dict[str, Any]:
    """What the run's last charge says of `key`; empty if nothing was charged."""
    said: list[dict[str, Any]] = [release[key] for release in releases if release["run"] == run and release[key]]
    return said[-1] if said else {}


def _noise(book: Book) -> str:
    costs = [cost for run in book.plans for cost in book.costs(run)]
    kinds = {"lattice" if isinstance(cost, SampledGaussian) else "exact discrete" for cost in costs}
    return " and ".join(sorted(kinds))


def _unique(values: Iterable[Any]) -> list[Any]:
    """Each once, in the order of its first appearance; without None."""
    return list({chain.canonical(value): value for value in values if value is not None}.values())


# --- in words ---------------------------------------------------------------------------------------------------------

_NEIGHBOURS = {
    Relation.ZERO_OUT: "replacing any one {unit} of the {slots} slots by a ghost without effect",
    Relation.ADD_OR_REMOVE: "adding or removing any one {unit}",
    Relation.REPLACE_ONE: "replacing any one {unit} of the {slots} slots by any other",
}


def _claim(document: Mapping[str, Any]) -> str:
    """The one paragraph that may be quoted."""
    manifest = document["manifest"]
    epsilon, delta = shown(document["epsilon"]), shown(document["delta"])
    together, ledger = document["together"], document["ledger"]
    change = _NEIGHBOURS[Relation(document["relation"])].format(unit=document["unit"], slots=document["slots"])
    *public, last_public = "N", *manifest.get("public", _PUBLIC)
    trusted = ", ".join(str(item.get("role", item)) for item in document["egress"]) or "none"
    commit = manifest.get("commit") or f"of digest {document['code'].get('source', 'unknown')[:16]}"
    where = (
        f"ledger {ledger['id']}, entries 1..{ledger['entries']}, head {ledger['head']}; "
        f"{document['partition']} partition{_beside(document)}; later releases add"
    )
    if document["purpose"] == "benchmark":
        releases = "this run alone" if together["runs"] == 1 else f"these {together['runs']} releases together"
        opening = (
            "Benchmark: public data played as private. "
            f"({epsilon}, {delta}) is the epsilon a single release would have; {releases}: "
            f"({shown(together['epsilon'])}, {shown(together['delta'])}). "
            f"Publishing the releases of run {document['run']} alone ({where}) would satisfy ({epsilon}, {delta})-DP: "
        )
    else:
        opening = f"Publishing, together, all releases listed here ({where}) satisfies ({epsilon}, {delta})-DP: "
    if document["epsilon"] == "Infinity":
        doubles = [source for source in document["noise"]["sources"] if source != "SystemRng"]
        reason = (
            f"noise was drawn from {', '.join(doubles)}, which is no secret source"
            if doubles
            else "its events have no bound"
        )
        opening = f"NO GUARANTEE: epsilon is infinite, because {reason}. What would be claimed otherwise: {opening}"
    return (
        f"{opening}{change} changes the probability of any event of the outputs by at most a factor e^{epsilon}, plus {delta}. "
        f"{', '.join(public)} and {last_public} are public by declaration. "
        f"Replace-one: ({shown(document['replace_one']['epsilon'])}, {delta}). "
        "A person with g records has the g-fold group guarantee; duplicates are not detected. "
        f"Holds for ideal randomness; noise: {document['noise']['kind']}, CSPRNG assumed. "
        f"Assumes: {'modified' if '+' in commit else 'unmodified'} code at commit {commit}; ledger not rolled back or copied; private folder, failed attempts, "
        "timing and sizes unseen; every model and public set made without these records or by an entry of this ledger; "
        "prompts, settings and the choice of what to publish made without looking at private records or unprotected figures "
        f"(shown {counted(document['unprotected_figures']['before_this_plan'], 'time')} before this plan)"
        + "".join(f"; {assumption}" for assumption in document["assumptions"])
        + f". Not covered: what trusted roles received ({trusted}), the test partition, provider logs."
    )


def _beside(document: Mapping[str, Any]) -> str:
    """The other partitions that anything was released from, and what one of their slots lost."""
    others = [figure for figure in document["partitions"] if figure["partition"] != document["partition"]]
    return "".join(
        f", and {figure['partition']} partition at ({shown(figure['epsilon'])}, {shown(figure['delta'])})"
        for figure in others
    )


def _text(document: Mapping[str, Any]) -> str:
    """`privacy.txt`."""
    figures, ledger = document["unprotected_figures"], document["ledger"]
    lines = ["What may be claimed", "===================", ""]
    lines += _wrapped(document["claim"])
    lines += ["", *_table(document)]
    lines += ["", "By partition, all runs so far:"]
    for figure in document["partitions"]:
        lines.append(
            f"  {figure['partition']}: ({shown(figure['epsilon'])}, {shown(figure['delta'])}) from {counted(figure['runs'], 'run')}; "
            f"replace-one {shown(figure['replace_one'])}"
        )
    highest = document["maximum"]
    lines.append(f"  largest: ({shown(highest['epsilon'])}, {shown(highest['delta'])})")
    lines.append("  The test partition has no guarantee once its exact scores leave.")
    lines += ["", "Runs so far, each with its share:", *ledger_page.run_lines(document["runs"])]
    sums = document["sums_of_shares"]
    lines.append(f"  sum of shares: ({shown(sums['epsilon'])}, {shown(sums['delta'])})")
    if sums["left"] is not None:
        lines.append(f"  left of the owner's total: ({left(sums['left']['epsilon'])}, {left(sums['left']['delta'])})")
    often = counted(figures["shown_by_now"], "time")
    lines.append(f"  unprotected figures of the voting set were shown {often} by now")
    lines += ["", "Every event:", *ledger_page.event_lines(document["releases"])]
    for title, items in (
        ("Prompts", document["manifest"].get("prompts", ())),
        ("Models", document["manifest"].get("models", ())),
        ("Sent to trusted roles", document["egress"]),
        ("Further assumptions", document["assumptions"]),
    ):
        lines += ["", f"{title}:", *(f"  {_item(item)}" for item in items or ["none"])]
    versions = {**document["libraries"], **document["manifest"].get("versions", {})}
    lines += [
        "",
        "Versions: " + (", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "unknown"),
    ]
    lines += ["", f"Recompute with: privolve verify RUN (ledger {ledger['id']}, {ledger['entries']} entries)", ""]
    return "\n".join(lines)


def _table(document: Mapping[str, Any]) -> list[str]:
    return [
        f"This run alone ({document['run']}), by its events:",
        *(
            f"  at delta {shown(row['delta'])}: epsilon {shown(row['epsilon'])}; replace-one {shown(row['replace_one'])}"
            for row in document["this_run"]["at"]
        ),
    ]


def _wrapped(claim: str) -> list[str]:
    """Lines that break between words alone: a run's id, a digest and a figure stay as they can be searched for."""
    return textwrap.wrap(claim, 100, break_long_words=False, break_on_hyphens=False)


def _item(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    return ", ".join(f"{key} {value}" for key, value in cast("dict[str, Any]", item).items())


# --- files ------------------------------------------------------------------------------------------------------------


def _certificate(document: Mapping[str, Any]) -> Certificate:
    return Certificate(
        epsilon=float(document["epsilon"]), delta=document["delta"], claim=document["claim"], document=document
    )


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def _hashes(document: Mapping[str, Any]) -> dict[str, JSON]:
    contents = {"certificate": _json(document), "text": _text(document).encode()}
    return {kind: hashlib.sha256(content).hexdigest() for kind, content in contents.items()}


def _standing(
    entries: list[Entry], run: str, artefacts: Mapping[str, str], manifest: Mapping[str, JSON]
) -> tuple[dict[str, Any], list[Entry]] | None:
    """The run's last certificate and the chain up to it, if it would say the same today; None if a new one is due."""
    last = next((entry for entry in reversed(entries) if entry.kind == "certified" and entry.run == run), None)
    if last is None or any(entry.run == run for entry in entries[last.seq :]):
        return None
    document = _document(entries[: last.seq - 1], run, artefacts, manifest)
    return (document, entries[: last.seq]) if _hashes(document) == last.body else None


def _relative(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name:
        raise LedgerError(f"{name!r} is no path from the run folder; artefacts are listed by such paths.")
    return name


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed_artefacts(run_dir: Path, certificate: bytes) -> list[str]:
    """The listed files that are not what was certified."""
    try:
        listed: dict[str, str] = json.loads(certificate)["artefacts"]
        names = {_relative(name): wanted for name, wanted in listed.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return [f"release/{FILE}: does not list its files ({error})"]
    problems: list[str] = []
    for name, wanted in names.items():
        try:
            if _file_hash(run_dir / name) != wanted:
                problems.append(f"{name}: is not the file that was certified")
        except OSError as error:
            problems.append(f"{name}: cannot be read ({error.strerror})")
    return problems


def _differences(said: Any, made: Any, where: str = "") -> list[str]:
    """Where two documents differ in more than the wording; figures may differ by what other versions round."""
    if isinstance(said, dict) and isinstance(made, dict):
        ours, theirs = cast("dict[str, Any]", said), cast("dict[str, Any]", made)
        names = sorted({*ours, *theirs} - {"claim"})
        nested = [_differences(ours.get(name), theirs.get(name), f"{where}.{name}".lstrip(".")) for name in names]
        return [difference for differences in nested for difference in differences]
    if isinstance(said, list) and isinstance(made, list):
        pairs = zip_longest(cast("list[Any]", said), cast("list[Any]", made))
        nested = [_differences(*pair, f"{where}[{number}]") for number, pair in enumerate(pairs)]
        return [difference for differences in nested for difference in differences]
    if isinstance(said, float) and isinstance(made, float) and math.isclose(said, made, rel_tol=1e-6):
        return []
    return [] if said == made else [f"{where} is {said!r}, but the chain gives {made!r}"]
