"""The tables of the response cache, and their history. A change is a new migration and a new VERSION, never an edit of an old one.

requests   what was asked: its key and the canonical JSON behind it
samples    what was answered, by (request, namespace, draw)
attempts   each try to get an answer that may cost: who, for what, reserved, sent, settled. A live one is a lease
batches    requests that the provider does when it has time: ours by a token, theirs by an id
budgets    what a run may spend, has reserved and has spent, in millionths of a dollar
models     which model answered for an adapter's settings, so that a replay opens none
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

VERSION = 3


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables to this version, inside the caller's transaction if there is one."""
    from sqlite_utils import Database

    _migrations(connection).apply(Database(connection, recursive_triggers=False, execute_plugins=False))


def _migrations(connection: sqlite3.Connection) -> Migrations:
    from sqlite_utils import Migrations

    migrations = Migrations("privolve.cache")

    def first(database: Database) -> None:
        requests = database.table("requests")
        requests.create({"id": int, "key": str, "canonical": str}, pk="id", not_null={"key", "canonical"})
        requests.create_index(["key"], unique=True)
        database.table("samples").create(
            {
                "request": int,
                "namespace": str,
                "draw": int,
                "kind": str,
                "about": str,
                "sha256": bytes,
                "payload": bytes,
                "saved_ms": int,
            },
            pk=("request", "namespace", "draw"),
            not_null={"kind", "about", "sha256", "saved_ms"},
            foreign_keys=[("request", "requests", "id")],
        )

    def second(database: Database) -> None:
        database.table("attempts").create(
            {
                "id": int,
                "key": str,
                "namespace": str,
                "draw": int,
                "scope": str,
                "role": str,
                "owner": str,
                "state": str,
                "reserved": int,
                "charged": int,
                "model": str,
                "price_version": str,
                "usage": str,
                "request_id": str,
                "at_ms": int,
                "done_ms": int,
            },
            pk="id",
            not_null={"scope", "role", "owner", "state", "reserved", "at_ms"},
        )
        # Who asks now: one live attempt a place. Attempts for private records have no place.
        connection.execute(
            "create unique index attempts_live on attempts (key, namespace, draw) where state in ('reserved', 'sent')"
        )
        connection.execute("create index attempts_owner on attempts (owner) where state in ('reserved', 'sent')")
        connection.execute("create index attempts_scope on attempts (scope, role)")
        database.table("budgets").create(
            {"scope": str, "cap": int, "reserved": int, "spent": int, "possible": int},
            pk="scope",
            not_null={"reserved", "spent", "possible"},
        )
        database.table("models").create({"settings": str, "identity": str}, pk="settings", not_null={"identity"})

    def third(database: Database) -> None:
        connection.execute("alter table attempts add column batch integer")
        connection.execute("drop index attempts_live")
        # An attempt in a batch holds its place too, whichever process is there.
        connection.execute(
            "create unique index attempts_live on attempts (key, namespace, draw) where state in ('reserved', 'sent', 'batch')"
        )
        connection.execute("create index attempts_batch on attempts (batch) where state = 'batch'")
        database.table("batches").create(
            {"id": int, "token": str, "endpoint": str, "remote": str, "owner": str, "state": str, "at_ms": int},
            pk="id",
            not_null={"token", "endpoint", "remote", "owner", "state", "at_ms"},
        )

    migrations(name="first")(first)
    migrations(name="second")(second)
    migrations(name="third")(third)
    return migrations
