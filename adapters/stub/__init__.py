"""The stub: a provider that anybody can run, on loopback, with answers and faults that are written down beforehand.

It speaks OpenAI's protocol and DashScope's well enough for their own SDKs, so that what an adapter, a retry, a budget
or a cache does under load and under faults is tried on the wire, without a key and for nothing. Only the standard
library serves; nothing here imports an SDK or an HTTP client.
"""

from .script import Fault, Rule, Script, ScriptError
from .stub import Recorded, Stub

__all__ = ["Fault", "Recorded", "Rule", "Script", "ScriptError", "Stub"]
