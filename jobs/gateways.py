"""The gateway as a job file describes it: one place for runs and for `privolve serve`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from ..adapters.contract import AdapterConfig
from ..adapters.gateway import Gateway
from ..adapters.roles import Progress
from ..adapters.wrappers.limited import Limits
from ..adapters.wrappers.metered import Spending
from ..adapters.wrappers.overheard import Billed
from ..adapters.wrappers.retrying import Patience
from ..cache.store import Store
from .job import Budget, Performance

CACHE_FILE = "answers.db"


def cache_folder(performance: Performance) -> Path:
    return Path(performance.cache) if performance.cache else Path("experiments") / ".cache"


def spending(budget: Budget) -> Spending:
    """The rules of a run's money."""
    return Spending(
        max_cost=budget.micro,
        allow_unknown_prices=budget.allow_unknown_prices,
        images_again=budget.lost_images == "again",
    )


def open_gateway(
    adapters: Mapping[str, AdapterConfig],
    *,
    budget: Budget,
    performance: Performance,
    store: Store,
    private_dir: Path,
    key: bytes,
    namespace: str,
    scope: str,
    trust: Collection[str] = (),
    progress: Progress | None = None,
    billed: Billed | None = None,
) -> Gateway:
    """A gateway under the job's budget and limits; see `Gateway` for whose answers and whose money."""
    return Gateway(
        adapters,
        trust=trust,
        store=store,
        private_dir=private_dir,
        key=key,
        namespace=namespace,
        scope=scope,
        chunk=performance.chunk,
        concurrency=performance.concurrency,
        patience=Patience(deadline_s=performance.deadline_s),
        mode=performance.cache_mode,
        retry_refused=performance.retry_refused,
        spending=spending(budget),
        limits={role: Limits(**vars(limits)) for role, limits in performance.limits.items()},
        progress=progress,
        billed=billed,
    )
