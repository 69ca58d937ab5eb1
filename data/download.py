"""Fetching a published set: the only place in `data` that speaks HTTP.

A file is fetched from the first mirror that gives it, goes on where it was cut, and gets its name only when it is whole and
right. Its checksum is compared with the publisher's where there is one, otherwise written down at the first download, in
`privolve-data.lock` beside it, and compared ever after. A redirect is followed to the hosts of the mirrors alone, and to
those that the catalogue allows. Python's own client does: a core installation can fetch.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..privacy import durable
from ..privacy.private import OperationalError
from .catalogue import Asset, Entry
from .errors import DataError
from .files import MEBIBYTE
from .unpack import unpack

LOCK_FILE = "privolve-data.lock"
DURABLE_EVERY = 32 * MEBIBYTE
"""After so many bytes a download is synced, and goes on from there even after a power cut."""
BLOCK = 256 * 1024
MAX_REDIRECTS = 5
MAGIC = {
    ".gz": (0, b"\x1f\x8b"),
    ".zip": (0, b"PK"),
    ".npz": (0, b"PK"),
    ".tar": (257, b"ustar"),
    ".parquet": (0, b"PAR1"),
}
OPEN_WAY = "; it came over an open connection: compare it with another copy if that matters"
PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head")

Note = Callable[[str], None]


class DownloadRefused(DataError):
    """What the mirrors sent is not the file, or a file that is here is not the one that was."""


class ByHand(DataError):
    """The publisher wants a person first: a licence to accept, a login."""


class Unreachable(OperationalError):
    """No mirror could be reached, or each broke off; the same command goes on."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try: attempts in a row without a byte more, the first wait between them, and for one answer."""

    attempts: int = 4
    first_wait_s: float = 1.0
    timeout_s: float = 60.0


class _Refused(Exception):
    """This mirror does not have the file: another may."""


class _Interrupted(Exception):
    """This mirror broke off, or is busy: it may go on later."""


def get(entry: Entry, folder: Path, *, note: Note, patience: Patience | None = None) -> None:
    """Fetch, check and unpack every file of a set into `folder`; what is there already is checked, not fetched again.

    Raises `ByHand`, `DownloadRefused`, `Unreachable`, or OSError of the disk. The same call goes on after any of them.
    """
    if not entry.files:
        raise ByHand(f"{entry.name}: {entry.by_hand or 'nothing to fetch by name'} ({entry.page})")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        missing: list[str] = []
        for asset in entry.files:
            if not asset.mirrors and not (folder / asset.name).exists():
                missing.append(asset.name)
                continue
            path = fetch(asset, folder, note=note, patience=patience or Patience())
            if asset.unpack is not None:
                _unpacked(asset, path, folder, note)
        if missing:
            raise ByHand(
                f"{entry.name}: {entry.by_hand}: {entry.page}; put {', '.join(missing)} into {folder} and run the same "
                "command again"
            )


def fetch(asset: Asset, folder: Path, *, note: Note, patience: Patience) -> Path:
    """One file, whole and checked."""
    path = folder / asset.name
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise DownloadRefused(f"{path}: is no regular file; move it away")
    if path.exists():
        digests = _digests(path, asset)
        if (wrong := _wrong(asset, digests, path.stat().st_size, folder)) is not None:
            raise DownloadRefused(f"{path}: {wrong}; remove it and run the same command again")
        _record(folder, asset, digests["sha256"], path.stat().st_size, "here before")
        note(f"{asset.name}: is here and is the file that is meant")
        return path
    failures: list[str] = []
    refused = False
    for url in asset.mirrors:
        host = urllib.parse.urlsplit(url).netloc
        try:
            _from_mirror(asset, url, folder, note, patience)
            return path
        except _Refused as reason:
            refused = True
            failures.append(f"{host} {reason}")
        except _Interrupted as reason:
            failures.append(f"{host} {reason}")
        note(f"{asset.name}: {failures[-1]}")
    told = "; ".join(failures)
    if refused:
        raise DownloadRefused(f"{asset.name} could not be fetched: {told}; fetch it by hand into {folder}")
    raise Unreachable(
        f"{asset.name} could not be fetched: {told}; run the same command again, it goes on where it was cut"
    )


def _from_mirror(asset: Asset, url: str, folder: Path, note: Note, patience: Patience) -> None:
    """The file from one mirror, or `_Refused`, or `_Interrupted` after the last attempt."""
    part = _Part(folder, asset.name)
    wait = patience.first_wait_s
    attempt = restarts = 0
    while True:
        before = part.length
        try:
            continued = _receive(asset, url, part, folder, note, patience)
        except _Interrupted:
            attempt = 1 if part.length > before else attempt + 1
            if attempt >= patience.attempts:
                raise
            if part.length > before:
                wait = patience.first_wait_s
            note(f"{asset.name}: broke off after {part.length} bytes; goes on in {wait:g} s")
            time.sleep(wait)
            wait *= 2
            continue
        digests = _digests(part.path, asset)
        wrong = _wrong(asset, digests, part.length, folder)
        if wrong is None:
            part.finish(folder / asset.name)
            _record(folder, asset, digests["sha256"], part.length, url)
            told = "its checksum is its publisher's" if asset.checksum else f"its checksum is now in {LOCK_FILE}"
            open_way = url.startswith("http:") and not asset.checksum
            note(f"{asset.name}: {part.length} bytes; {told}{OPEN_WAY if open_way else ''}")
            return
        part.discard()
        if not continued or restarts:
            raise _Refused(wrong)
        restarts += 1  # the two pieces may be of different files


def _receive(asset: Asset, url: str, part: _Part, folder: Path, note: Note, patience: Patience) -> bool:
    """Append what is missing of the file. True if it went on from an earlier piece."""
    start = part.resume(url, any_mirror=asset.checksum is not None or _recorded(folder, asset.name) is not None)
    headers = {"User-Agent": "privolve", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if part.validator and part.url == url:
            headers["If-Range"] = part.validator
    with _answer(url, headers, _hosts(asset), patience.timeout_s) as answer:
        if answer.status == 416 and start:
            part.discard()
            raise _Interrupted("has less than was fetched before")
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise _Interrupted(f"answers {answer.status}")
        if answer.status not in (200, 206):
            raise _Refused(f"answers {answer.status}")
        if "html" in answer.headers.get("Content-Type", "").lower():
            raise _Refused("sends a web page instead of the file")
        total = _total(answer, start) if answer.status == 206 else _length(answer)
        if total is None and asset.checksum is None and answer.headers.get("Transfer-Encoding", "") != "chunked":
            raise _Refused("does not say how long the file is, so a piece of it could not be told from the whole")
        if answer.status == 200 and start:
            part.discard()
            start = 0
        limit = asset.size or asset.at_most
        if total is not None and (total > limit or (asset.size is not None and total != asset.size)):
            raise _Refused(
                f"offers {total} bytes where {limit} {'are stated' if asset.size else 'at most are allowed'}"
            )
        _check_space(folder, (total or 0) - start)
        part.begin(url, answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "", start)
        note(f"{asset.name}: {'goes on' if start else 'begins'} at {start} of {total or 'unknown'} bytes from {url}")
        try:
            while block := _block(answer):
                if part.length + len(block) > limit:
                    part.discard()
                    raise _Refused(f"sends more than {limit} bytes")
                part.append(block)
        finally:
            part.sync()
        if total is not None and part.length < total:
            raise _Interrupted(f"broke off after {part.length} of {total} bytes")
    return start > 0


class _Part:
    """An unfinished file, and a note beside it: where it comes from, and how much of it is durable."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f".{name}.part"
        self._state = folder / f".{name}.part.json"
        self.url = self.validator = ""
        self.length = 0
        self._durable = 0
        self._file: Any = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(self._state.read_text(encoding="utf-8"))
            url, validator, length = str(told["url"]), str(told["validator"]), int(told["durable"])
            if not self.path.is_symlink() and self.path.stat().st_size >= length >= 0:
                self.url, self.validator, self.length = url, validator, length

    def resume(self, url: str, *, any_mirror: bool) -> int:
        """How much may be kept: all of it if the rest is known to be of the same file, else nothing.

        It is: of the same address with the same ETag or date (asked by If-Range), or where a known checksum decides.
        """
        if not any_mirror and (url != self.url or not self.validator or self.validator.startswith("W/")):
            self.length = 0
        return self.length

    def begin(self, url: str, validator: str, start: int) -> None:
        self.close()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self._file = os.fdopen(descriptor, "r+b")
        self._file.truncate(start)
        self._file.seek(start)
        self.url, self.validator, self.length = url, validator, start
        self.sync()

    def append(self, block: bytes) -> None:
        try:
            self._file.write(block)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self.length += len(block)
        if self.length - self._durable >= DURABLE_EVERY:
            self.sync()

    def sync(self) -> None:
        """What there is of it outlives a power cut, and the note says so."""
        if self._file is None or self._file.closed:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._durable = self.length
        told = {"url": self.url, "validator": self.validator, "durable": self.length}
        durable.write_bytes(self._state, json.dumps(told).encode("utf-8"))

    def discard(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)
        self.url = self.validator = ""
        self.length = self._durable = 0

    def finish(self, path: Path) -> None:
        """Give it its name. Nobody else works in the folder, and the name was free."""
        self.close()
        if path.is_symlink() or path.exists():
            raise DownloadRefused(f"{path}: appeared while it was fetched; it is not written over")
        self.path.rename(path)
        durable.sync_folder(path.parent)
        self._state.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None and not self._file.closed:
            self._file.close()


@contextmanager
def _answer(
    url: str, headers: Mapping[str, str], hosts: frozenset[str], timeout_s: float
) -> Iterator[http.client.HTTPResponse]:
    """The answer of a mirror, after redirects that stay within `hosts` and never leave HTTPS."""
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    for _ in range(MAX_REDIRECTS + 1):
        request = urllib.request.Request(_checked(url, hosts), headers=dict(headers))  # noqa: S310  _checked: http alone
        try:
            answer = opener.open(request, timeout=timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(f"cannot be reached ({_reason(error)})") from None
        assert isinstance(answer, http.client.HTTPResponse)
        with contextlib.closing(answer):
            if answer.status not in (301, 302, 303, 307, 308):
                yield answer
                return
            target = urllib.parse.urljoin(url, answer.headers.get("Location", ""))
            if url.startswith("https:") and not target.startswith("https:"):
                raise _Refused("redirects from HTTPS to an open connection")
            url = target
    raise _Refused("redirects in a circle")


def _checked(url: str, hosts: frozenset[str]) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise _Refused("redirects to an address that is none") from None
    if parts.scheme not in ("http", "https") or parts.username is not None or parts.hostname is None:
        raise _Refused("redirects to something else than a web address")
    place = parts.hostname.lower() if port is None else f"{parts.hostname.lower()}:{port}"
    if place not in hosts and not any(host[:2] == "*." and place.endswith(host[1:]) for host in hosts):
        raise _Refused(f"redirects to {place[:100]}, which is none of the set's hosts")
    return url


def _hosts(asset: Asset) -> frozenset[str]:
    return frozenset({urllib.parse.urlsplit(url).netloc.lower() for url in asset.mirrors} | set(asset.redirects))


def _block(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"broke off ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, OSError) and inner.errno is not None:
        return errno.errorcode.get(inner.errno, type(inner).__name__)
    return type(inner).__name__ if isinstance(inner, Exception) else type(error).__name__


def _length(answer: http.client.HTTPResponse) -> int | None:
    told = answer.headers.get("Content-Length", "")
    return int(told) if re.fullmatch(r"[0-9]{1,15}", told) else None


def _total(answer: http.client.HTTPResponse, start: int) -> int:
    told = re.fullmatch(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15})", answer.headers.get("Content-Range", ""))
    if told is None or int(told[1]) != start:
        raise _Refused("sends another piece of the file than was asked for")
    return int(told[2])


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"No space left: {needed} bytes are needed and {free} are free", str(folder))


def _digests(path: Path, asset: Asset) -> dict[str, str]:
    """SHA-256, and what the publisher uses."""
    wanted = {"sha256", *([asset.checksum.partition(":")[0]] if asset.checksum else [])}
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in wanted}
    with path.open("rb") as file:
        while block := file.read(MEBIBYTE):
            for digest in digests.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _wrong(asset: Asset, digests: Mapping[str, str], size: int, folder: Path) -> str | None:
    """Why a file is not the one that is meant; None where nothing speaks against it."""
    if asset.size is not None and size != asset.size:
        return f"has {size} bytes, and its publisher states {asset.size}"
    if asset.checksum is not None:
        name, _, stated = asset.checksum.partition(":")
        if digests[name] != stated:
            return f"has the {name} {digests[name]}, and its publisher states {stated} ({asset.stated})"
    known = _recorded(folder, asset.name)
    if known is not None and digests["sha256"] != known["sha256"]:
        return f"has another checksum than at its first download ({LOCK_FILE})"
    path = folder / asset.name
    return _disguised(path if path.exists() else folder / f".{asset.name}.part", asset.name)


def _disguised(path: Path, name: str) -> str | None:
    """A file whose beginning is not what its name says: most often an error page."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.lstrip().lower().startswith(PAGES):
        return "is a web page instead of the file"
    suffix = Path(name).suffix
    place, magic = MAGIC.get(suffix, (0, b""))
    return None if start[place : place + len(magic)] == magic else f"is no {suffix} file"


def _unpacked(asset: Asset, path: Path, folder: Path, note: Note) -> None:
    assert asset.unpack is not None and asset.unpacked_at_most is not None
    into = folder / asset.unpack
    known = _recorded(folder, asset.name)
    if known is not None and known.get("unpacked") == asset.unpack and into.is_dir():
        return
    if into.is_symlink() or into.exists():
        raise DownloadRefused(f"{into}: is there already and was not unpacked by this command; move it away")
    note(f"{asset.name}: unpacking into {asset.unpack}")
    table = _locked(folder)
    table[asset.name]["unpacked"] = asset.unpack  # before it is there: once it is, it is whole
    _save(folder, table)
    count = unpack(path, into, at_most=asset.unpacked_at_most, where=str(folder))
    note(f"{asset.name}: {count} files in {asset.unpack}")


def _recorded(folder: Path, name: str) -> dict[str, Any] | None:
    return _locked(folder).get(name)


def _record(folder: Path, asset: Asset, sha256: str, size: int, origin: str) -> None:
    table = _locked(folder)
    if asset.name not in table:
        now = datetime.now(UTC).strftime("%Y-%m-%d")
        table[asset.name] = {"sha256": sha256, "bytes": size, "from": origin, "recorded": now}
        _save(folder, table)


def _locked(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / LOCK_FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(table, dict) and all(isinstance(row, dict) and "sha256" in row for row in table.values()):
            return table
    except FileNotFoundError:
        return {}
    except ValueError:
        pass
    raise DownloadRefused(f"{path}: is damaged; restore it, or remove it to record what is here as the first download")


def _save(folder: Path, table: Mapping[str, Any]) -> None:
    durable.write_bytes(folder / LOCK_FILE, (json.dumps(table, indent=1, sort_keys=True) + "\n").encode("utf-8"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process a folder."""
    descriptor = os.open(folder / f".{LOCK_FILE}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unreachable(
                f"{folder}: another process fetches into it; wait for it, and run the same command again"
            ) from None
        yield
    finally:
        os.close(descriptor)
