"""Run a job or go on with it, and say in the end what may be claimed and where it lies."""

from __future__ import annotations

from pathlib import Path

from . import several
from .job import JobConfig
from .run import Run

EXPERIMENTS = Path("experiments")


def run(config: JobConfig, *, out: Path | None = None, reuse: str | None = None) -> Run | None:
    """Run `config` in its folder under `experiments`, or in `out`, with answers shared under `reuse`. A finished run is not run again.

    In a process beside the first, which `torchrun` starts, help with it, or do nothing; then there is no run to return.
    """
    if several.is_helper():
        if config.is_helped:
            config.help()
        return None
    with several.together(), Run.open(config, root=EXPERIMENTS, out=out, reuse=reuse) as opened:
        if opened.is_finished:
            if config.is_helped:
                several.share({"train": False})
            print(f"{opened.folder} is finished; to run it anew change `seed`, or name another folder with --out")
        else:
            print(f"{'going on with' if opened.is_resumed else 'running'} {opened.folder}")
            config.run(opened)
            opened.finish()
        print(config.closing(opened))
    return opened
