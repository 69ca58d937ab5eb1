"""A process that gives commands of privolve, each in a child of its own that may be killed: `kill_nursery.py`.

It has imported once what is slow to import, and forks; a child calls the command line's own `main`. Reads one JSON a line:
folder, arguments, environment; answers with one JSON a line: code (negative: killed by that signal), out, err.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def prepare(job: dict[str, Any]) -> None:
    """Import, and account for the job's plan, so that no child has to. Nothing here starts a thread."""
    import matplotlib.figure  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch
    import torch._dynamo
    from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: F401

    from privolve.evaluation.report import page  # noqa: F401
    from privolve.jobs import job as jobs
    from privolve.jobs import training, training_design  # noqa: F401
    from privolve.trainers import feature_generator, latent_model, loop, model, semantic_classifier  # noqa: F401
    from privolve.trainers.diffusion import latent, samplers, unet  # noqa: F401

    torch.set_num_threads(1)
    loop.CHECKPOINT_EVERY_S = 0.0  # Every step of a public stage is kept.
    for path in job["warm"]:
        config = jobs.load(Path(path))
        training_design.Design.of(config, config.split())  # type: ignore[arg-type]


def child(task: dict[str, Any], answer: Path) -> int:
    from privolve.cli import main

    os.environ.update(task["environment"])
    os.chdir(task["folder"])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(task["arguments"])
    answer.write_text(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}))
    return code


def main() -> None:
    prepare(json.loads(sys.stdin.readline()))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "answer.json"
            process = os.fork()
            if process == 0:
                try:
                    child(task, answer)
                finally:
                    os._exit(0)
            _, status = os.waitpid(process, 0)
            said = {"code": os.waitstatus_to_exitcode(status), "out": "", "err": ""}
            if answer.exists():
                said = json.loads(answer.read_text())
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
