"""Endpoint: the one place that a remote adapter may talk to, and the key that it shows there.

https, or plain http to this machine alone. A key is known by the name of an environment variable; its value is read
when the adapter is opened, held as a secret, and put on the request where it leaves (`egress`), nowhere before.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from ..contract import AdapterUnavailable

KeyName = Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")]
"""The name of an environment variable, "" for a server that wants no key. A key itself does not fit the pattern."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """scheme://host[:port]/path without a slash at its end: what tells one server's replies from another's."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """The endpoint that `url` names; ValueError says what is wrong with it, without repeating a password."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("is no URL") from None
        host = (parts.hostname or "").lower()
        if parts.scheme not in ("https", "http") or not host:
            raise ValueError("must be a URL such as 'https://api.example.com/v1'")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must not hold a user, a password, a query or a fragment: keys stay in the environment")
        if parts.scheme == "http" and not is_loopback(host):
            raise ValueError(f"must be https: plain http is for this machine alone, and {host} is another")
        standard = 443 if parts.scheme == "https" else 80
        return cls(scheme=parts.scheme, host=host, port=port or standard, path=parts.path.rstrip("/"))

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        standard = 443 if self.scheme == "https" else 80
        port = "" if self.port == standard else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_url(url: str) -> str:
    """A validator of config fields: the endpoint's one spelling."""
    return str(Endpoint.parse(url))


def read_key(kind: str, name: str) -> SecretStr | None:
    """The key that lies in the environment; None if the config wants none."""
    if not name:
        return None
    value = os.environ.get(name, "").strip()
    if not value:
        raise AdapterUnavailable(
            f"{kind}: the environment variable {name} is not set; export it with your key, or name another with `api_key_env`"
        )
    if not value.isascii() or any(character.isspace() for character in value):
        raise AdapterUnavailable(
            f"{kind}: the environment variable {name} holds no key: blanks or letters outside ASCII"
        )
    return SecretStr(value)
