"""Processes to be killed: each asks a writer in batch mode for some texts at a stub that runs elsewhere.

Called as `python batching.py URL COUNT`; each line of the input, `FOLDER [FAILPOINT]`, is a process, a fork of one that has
imported what is slow to import. What it says lies in FOLDER/said; its end is a line of the output.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from privolve.adapters.contract import Message, TextRequest
from privolve.adapters.gateway import Gateway
from privolve.adapters.remote.openai import OpenAIConfig
from privolve.adapters.wrappers.metered import Spending
from privolve.cache.sqlite import SqliteStore


def text(draw: int) -> TextRequest:
    message = Message(role="user", content=f"A bedroom, number {draw % 7}.")
    return TextRequest(messages=(message,), draw=draw, max_tokens=60)


def config(url: str) -> OpenAIConfig:
    os.environ["BATCH_KEY"] = "sk-test"
    return OpenAIConfig(
        model="gpt-4o-mini",
        base_url=url,
        provider="openai",
        api_key_env="BATCH_KEY",
        mode="batch",
        batch_poll_s=0.01,
    )


def ask(folder: Path, url: str, count: int) -> None:
    with Gateway(
        {"writer": config(url)},
        store=SqliteStore(folder / "cache.db"),
        private_dir=folder / "private",
        key=b"k" * 32,
        namespace="run",
        spending=Spending(max_cost=10**9),
    ) as gateway:
        replies = gateway.open("writer").send([text(draw) for draw in range(count)])
    (folder / "said").write_text("\n".join(map(str, replies)))


def main(url: str, count: int) -> None:
    import httpx2  # noqa: F401
    import openai  # noqa: F401

    for line in sys.stdin:
        folder, _, failpoint = line.strip().partition(" ")
        child = os.fork()
        if child == 0:
            os.environ["PRIVOLVE_FAILPOINT"] = failpoint
            code = 1
            try:
                ask(Path(folder), url, count)
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
