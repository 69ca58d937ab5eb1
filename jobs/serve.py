"""What `privolve serve` serves: the `[adapters]` of a job file, or of a file that holds nothing else of a job."""

from __future__ import annotations

import os
import secrets
import tempfile
import tomllib
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from ..adapters.gateway import Gateway
from ..adapters.server.usages import Usages
from ..cache.money import dollars
from ..cache.sqlite import SqliteStore
from . import job
from .gateways import CACHE_FILE, cache_folder, open_gateway
from .job import AnyAdapter, Budget, InputError, Performance, Table

NAMESPACE = "serve"
"""Apart from every run: a run's answers are its own."""
MOST_THREADS = 256


class Served(Table, frozen=True):
    """The tables of a job file that a server reads."""

    adapters: dict[str, AnyAdapter]
    budget: Budget = Budget()
    """Over all servers of this file that share a cache, however often they are started again."""
    performance: Performance = Performance()


def load(path: Path) -> Served:
    """The adapters of a job file, or of a file with `[adapters]` and, if need be, `[budget]` and `[performance]`."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}; name a job file, or one with [adapters]") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    if "kind" in table:
        config = job.load(path)
        return Served(adapters=config.adapters, budget=config.budget, performance=config.performance)
    try:
        served = Served.model_validate(table)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        known = f"; known here: {', '.join(Served.model_fields)}" if problem["type"] == "extra_forbidden" else ""
        message = problem["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {where}: {message}{known}") from None
    if not served.adapters:
        raise InputError(f"{path}: [adapters] names no role; there is nothing to serve")
    return served


def serve(path: Path, *, host: str, port: int, token_env: str | None, inputs_are_public: bool) -> None:
    """Serve until interrupted. Raises one-line errors before it listens."""
    server = _server()
    token = _token(token_env)
    server.check_address(host, token=token)
    served = load(path)
    performance = served.performance
    usages = Usages()
    store = SqliteStore(cache_folder(performance) / CACHE_FILE)
    try:
        # Nothing private is asked here: the folder stays empty and the key goes unused.
        with (
            tempfile.TemporaryDirectory(prefix="privolve-serve-") as nothing,
            _gateway(served, store, private_dir=Path(nothing), scope=_scope(path), usages=usages) as gateway,
        ):
            app = server.application(
                gateway,
                served.adapters,
                token=token,
                inputs_are_public=inputs_are_public,
                at_once=min(performance.concurrency, MOST_THREADS),
                usages=usages,
            )
            listening = server.Server(app, host=host, port=port)
            print(f"serving {', '.join(sorted(served.adapters))} at {listening.url}", flush=True)
            with suppress(KeyboardInterrupt):
                listening.run()
            for role, counts in sorted(gateway.counts().items()):
                print(f"{role}: {counts.asked} asked, {counts.from_cache} from the cache, {counts.refused} refused")
            print(f"spent so far: {dollars(gateway.money().spent)}")
    finally:
        store.close()


def _gateway(served: Served, store: SqliteStore, *, private_dir: Path, scope: str, usages: Usages) -> Gateway:
    return open_gateway(
        served.adapters,
        budget=served.budget,
        performance=served.performance,
        store=store,
        private_dir=private_dir,
        key=secrets.token_bytes(32),
        namespace=NAMESPACE,
        scope=scope,
        billed=usages.heard,
    )


def _scope(path: Path) -> str:
    """Whose money is spent: the file's, by a hash of where it lies."""
    return f"{NAMESPACE}-{sha256(str(path.resolve()).encode()).hexdigest()[:16]}"


def _server():
    """The part that needs the extra."""
    try:
        from ..adapters.server import app
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "python_multipart", "starlette", "uvicorn"):
            raise
        raise InputError(
            f"privolve serve needs {error.name}, which is not installed: pip install 'privolve[serve]'"
        ) from None
    return app


def _token(name: str | None) -> str | None:
    """The token that an environment variable holds. Never shown."""
    if name is None:
        return None
    token = os.environ.get(name)
    if not token:
        raise InputError(
            f"--token-env {name}: this environment variable is empty; put the token there, or leave it out"
        )
    return token
