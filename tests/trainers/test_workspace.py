"""Checkpoints: what is gone on from, what is refused, and what a kill at any step leaves."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privolve.privacy.ledger import BudgetExceeded, Ledger, LedgerError
from privolve.privacy.ledger_book import Book
from privolve.privacy.ledger_store import read_entries
from privolve.privacy.private import OperationalError, Private
from privolve.trainers.dp_sgd import Training, release_training
from privolve.trainers.workspace import CheckpointRefused, Checkpoints, State, Workspace, chosen_device

WORKER = Path(__file__).with_name("training_worker.py")


def state(step: int, value: float = 1.0) -> State:
    return State(step=step, arrays={"weights": np.full(3, value, np.float32), "ema": np.zeros(3, np.float32)})


class Stopped(Exception):
    """The process died here, as far as the ledger can tell."""


class Desk:
    """A release of 12 steps with a checkpoint every 4, which can be stopped as a kill would stop it."""

    def __init__(self, gym: Any) -> None:
        self.gym = gym
        self.data = gym.records()
        self.ledger: Ledger = gym.ledger(20, secret=gym.Secret())
        self.ledger.reserve(gym.plan(self.training()))
        self.drawn = 0

    def training(self, **settings: Any) -> Training:
        return self.gym.training(
            self.gym.linear(), self.gym.sgd(steps=12, noise=4.0), **{"checkpoint_every": 4, **settings}
        )

    def run(self, *, stop_at: int | None = None, question: str = "q", **settings: Any) -> Any:
        """One attempt; killed while step `stop_at` (from 1) is told. The number of steps drawn is in `drawn`."""

        def progress(step: int, steps: int) -> None:
            if step == stop_at:
                raise KeyboardInterrupt

        secret = self.gym.Secret()
        self.ledger._secret = secret
        try:
            return release_training(
                self.ledger,
                self.training(progress=progress, **settings),
                Private(self.data),
                name="run/dp-sgd",
                question=question,
            )
        except KeyboardInterrupt:
            raise Stopped from None
        finally:
            self.drawn = len(secret.noises)

    def stopped(self, step: int, **settings: Any) -> int:
        with pytest.raises(Stopped):
            self.run(stop_at=step, **settings)
        return self.drawn

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.ledger.entries()][2:]

    @property
    def folder(self) -> Path:
        return self.gym.folder / "private"


@pytest.fixture
def desk(gym: Any) -> Desk:
    return Desk(gym)


# --- going on ---------------------------------------------------------------------------------------------------------


def test_a_training_is_charged_whole_before_its_first_step(desk: Desk):
    kinds: list[list[str]] = []
    true = desk.gym.Secret

    class Watching(true):
        def mask(self, n: int, probability: float) -> np.ndarray:
            kinds.append(desk.kinds())
            return super().mask(n, probability)

    desk.gym.Secret = Watching
    desk.run()
    assert kinds == [["charge"]] * 12
    charge = desk.ledger.entries()[2]
    assert charge.body["cost"]["steps"] == 12
    assert desk.kinds() == ["charge", "release"]


def test_a_resumed_training_draws_the_steps_after_its_checkpoint_alone_and_pays_once(desk: Desk):
    assert desk.stopped(6) == 6
    outputs = desk.run()
    assert desk.drawn == 8
    assert desk.kinds() == ["charge", "continued", "release"]
    entry = desk.ledger.entries()[3]
    assert (entry.body["attempt"], entry.body["step"]) == (1, 4)
    assert desk.ledger.book.copies("run/dp-sgd") == 1
    # What came of it is what an undisturbed run comes to, for equal masks and noise.
    undisturbed = desk.training(workspace=desk.gym.workspace("other"))(desk.gym.Secret(), desk.data)
    assert all(np.array_equal(outputs[name], undisturbed[name]) for name in undisturbed)
    assert desk.run()["weights/weight"].tobytes() == outputs["weights/weight"].tobytes() and desk.drawn == 0


def test_a_training_goes_on_as_often_as_it_comes_further(gym: Any):
    desk = Desk(gym)
    assert [desk.stopped(step, checkpoint_every=1) for step in range(2, 12)] == [2, *[1] * 9]
    assert desk.ledger.book.copies("run/dp-sgd") == 1
    desk.run(checkpoint_every=1)
    assert desk.kinds() == ["charge", *["continued"] * 10, "release"]


def test_momenta_and_averages_are_gone_on_with(gym: Any):
    from privolve.trainers.optimizers import Optimizer

    def training(name: str, **settings: Any) -> Training:
        sgd = gym.sgd(steps=6, optimizer=Optimizer(learning_rate=0.1, schedule="cosine"))
        return gym.training(gym.linear(), sgd, workspace=gym.workspace(name, checkpoint_every=3, **settings))

    noise = np.random.default_rng(1).normal(size=(6, 6))
    data = gym.records()
    whole = training("whole")(gym.Secret(noise=lambda step, shape: noise[step]), data)
    begun = training("parts")
    begun.workspace.bind(key=b"k", belongs_to={})
    begun(gym.Secret(noise=lambda step, shape: noise[step]), data)
    last = gym.folder / "parts"
    assert sorted(path.name for path in last.glob("checkpoint*")) == [
        "checkpoint-0000006.json",
        "checkpoint-0000006.safetensors",
    ]

    def dies(step: int, steps: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    broken = training("broken", progress=dies)
    broken.workspace.bind(key=b"k", belongs_to={})
    with pytest.raises(KeyboardInterrupt):
        broken(gym.Secret(noise=lambda step, shape: noise[step]), data)
    again = training("broken")
    assert again.workspace.bind(key=b"k", belongs_to={}).step == 3
    rest = again(gym.Secret(noise=lambda step, shape: noise[3 + step]), data)
    assert all(np.array_equal(rest[name], whole[name]) for name in whole)


def test_a_training_whose_last_checkpoint_is_its_end_is_saved_without_a_draw(desk: Desk):
    desk.stopped(12)
    outputs = desk.run()
    assert desk.drawn == 0
    assert desk.kinds() == ["charge", "continued", "release"]
    undisturbed = desk.training(workspace=desk.gym.workspace("other"))(desk.gym.Secret(), desk.data)
    assert np.array_equal(outputs["weights/weight"], undisturbed["weights/weight"])


def test_the_fourth_attempt_from_one_checkpoint_is_charged(desk: Desk):
    desk.stopped(5)
    book = desk.ledger.book
    for attempts in (1, 2, 3):  # the first goes on, and the two after it are attempts of their own
        assert desk.stopped(5) == 1
        assert len(book.attempts("run/dp-sgd")) == attempts
        assert book.copies("run/dp-sgd") == 1
    assert desk.stopped(5) == 1
    assert book.copies("run/dp-sgd") == 2
    assert desk.kinds() == ["charge", "continued", *["charge", "continued"] * 3]


def test_an_attempt_above_the_share_is_refused(gym: Any):
    desk = Desk(gym)
    from privolve.privacy.accounting import epsilon

    alone = epsilon([desk.training().cost], 1e-5)
    desk.ledger.reserve(gym.plan(desk.training(), epsilon=alone * 1.01))
    for _ in range(4):
        desk.stopped(5)
    with pytest.raises(BudgetExceeded, match="attempted 3 times"):
        desk.run()


# --- what is refused --------------------------------------------------------------------------------------------------


def copies(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("checkpoint*")}


def put_back(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.glob("checkpoint*"):
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_a_stale_checkpoint_is_refused(desk: Desk):
    desk.stopped(5)
    stale = copies(desk.folder)
    desk.stopped(9)  # went on from step 4, to step 8
    desk.stopped(11)  # went on from step 8
    put_back(desk.folder, stale)
    with pytest.raises(LedgerError, match="cannot begin from step 4: it is older than step 8") as refused:
        desk.run()
    assert desk.drawn == 0 and "\n" not in str(refused.value)
    put_back(desk.folder, {})
    with pytest.raises(LedgerError, match="cannot begin anew: it is older than step 8"):
        desk.run()
    assert desk.drawn == 0


def test_nothing_before_a_shown_checkpoint_is_drawn_again(desk: Desk):
    shown: list[int] = []
    preview = {"preview_every": 8, "preview": lambda step, weights: shown.append(step)}
    desk.stopped(5, **preview)
    stale = copies(desk.folder)
    desk.stopped(9, **preview)
    assert shown == [8]
    assert desk.kinds() == ["charge", "continued", "shown"]
    newest = copies(desk.folder)
    put_back(desk.folder, stale)
    with pytest.raises(LedgerError, match="of which something was shown"):
        desk.run(**preview)
    put_back(desk.folder, newest)
    desk.run(**preview)
    assert desk.drawn == 4


def test_another_outcome_of_a_known_step_is_refused(desk: Desk):
    desk.stopped(5)
    desk.stopped(5)
    mechanism = dict(desk.training().describe())
    from privolve.privacy.ledger_book import plan_digest

    plan = desk.ledger.book.plans["run"].plan
    forged = Checkpoints(
        desk.folder,
        key=desk.ledger.key,
        belongs_to={
            "ledger": desk.ledger.id,
            "release": "run/dp-sgd",
            "plan": plan_digest(plan),
            "question": "q",
            "mechanism": mechanism,
        },
    )
    found = forged.newest()
    assert found is not None
    forged.save(State(step=4, arrays={name: array + 1 for name, array in found[1].arrays.items()}))
    with pytest.raises(LedgerError, match="step 4 had another outcome before"):
        desk.run()


def test_a_checkpoint_of_another_plan_is_refused(desk: Desk):
    desk.stopped(5)
    with pytest.raises(CheckpointRefused, match="belongs to another plan, release, start or version") as refused:
        desk.run(question="another")
    assert desk.drawn == 0 and "\n" not in str(refused.value)


def test_a_checkpoint_of_another_ledger_is_refused(desk: Desk, gym: Any, tmp_path: Path):
    desk.stopped(5)
    other = Ledger.create_or_open(
        tmp_path / "elsewhere" / "set2", name="set2", slots=20, unit="image", relation="zero-out", secret=gym.Secret()
    )
    with other:
        other.reserve(gym.plan(desk.training()))
        with pytest.raises(CheckpointRefused, match="for a ledger of this key"):
            release_training(other, desk.training(), Private(desk.data), name="run/dp-sgd", question="q")


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_every_changed_byte_of_a_checkpoint_is_noticed(tmp_path: Path, suffix: str):
    checkpoints = Checkpoints(tmp_path, key=b"key", belongs_to={"a": 1})
    checkpoints.save(state(4))
    path = tmp_path / f"checkpoint-0000004{suffix}"
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointRefused) as refused:
            checkpoints.newest()
        assert "\n" not in str(refused.value)
    path.write_bytes(content)
    assert checkpoints.newest() is not None
    path.unlink()
    if suffix == ".safetensors":
        with pytest.raises(CheckpointRefused, match="cannot be read"):
            checkpoints.newest()


def test_a_checkpoint_without_an_attempt_is_refused(gym: Any):
    desk = Desk(gym)
    desk.stopped(5)
    saved = copies(desk.folder)
    ledger = gym.ledger(20, secret=gym.Secret(), name="fresh")
    ledger.reserve(gym.plan(desk.training()))
    from privolve.privacy.ledger import Checkpoint

    with pytest.raises(LedgerError, match="of no attempt"):
        ledger.release(
            desk.training(),
            Private(desk.data),
            name="run/dp-sgd",
            question="q",
            checkpoint=Checkpoint(step=4, sha256="0" * 64),
        )
    assert saved


def test_the_newest_checkpoint_alone_is_kept_and_a_half_written_one_is_none(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, key=b"key", belongs_to={})
    assert checkpoints.newest() is None
    checkpoints.save(state(4))
    newest = checkpoints.save(state(8, 2.0))
    (tmp_path / "checkpoint-0000012.safetensors").write_bytes(b"half")
    found = checkpoints.newest()
    assert found is not None and found[0] == newest and found[1].arrays["weights"].tolist() == [2.0] * 3
    assert not (tmp_path / "checkpoint-0000004.safetensors").exists()
    checkpoints.clear()
    assert checkpoints.newest() is None


# --- what is told -----------------------------------------------------------------------------------------------------


def test_progress_is_told_public_numbers_alone_and_the_log_is_private(gym: Any):
    told: list[tuple[int, int]] = []
    workspace = gym.workspace(log_every=2, progress=lambda *figures: told.append(figures))
    gym.training(gym.linear(), gym.sgd(steps=4), workspace=workspace)(gym.Secret(), gym.records())
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    log = workspace.folder / "steps.jsonl"
    assert stat.S_IMODE(workspace.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2]
    assert lines[0]["records"] == 20 and {"loss", "gradient_norm_median", "clipped"} <= set(lines[0])


def test_the_log_changes_nothing(gym: Any):
    outputs = [
        gym.training(gym.conv(), gym.sgd(steps=3), loop=False, log_every=every)(
            gym.Secret(), gym.records(image=(6, 6, 1))
        )
        for every in (0, 1)
    ]
    assert all(np.array_equal(outputs[0][name], outputs[1][name]) for name in outputs[0])


def test_checkpoints_are_private_files(desk: Desk):
    desk.stopped(5)
    files = list(desk.folder.glob("checkpoint*"))
    assert len(files) == 2 and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    desk.run()
    assert not list(desk.folder.glob("checkpoint*"))


def test_a_preview_is_of_a_durable_checkpoint_and_its_failure_is_operational(desk: Desk):
    def preview(step: int, weights: Any) -> None:
        assert list(desk.folder.glob(f"checkpoint-{step:07}.json"))
        assert desk.kinds()[-1] == "shown"
        raise ValueError("no font")

    with pytest.raises(OperationalError):
        desk.run(preview_every=4, preview=preview)
    with pytest.raises(ValueError, match="no multiple"):
        Workspace(folder=desk.folder, preview_every=5, checkpoint_every=4)


def test_devices_are_named_or_refused():
    assert chosen_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="auto, cpu, cuda"):
        chosen_device("mps")


# --- a real kill ------------------------------------------------------------------------------------------------------


def attempt(folder: Path, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PRIVOLVE_FAILPOINT": failpoint, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(WORKER), str(folder)], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "points",
    [
        ["dp-sgd-after-mask", "dp-sgd-after-noise:7", "checkpoint-after-header:2"],
        ["dp-sgd-after-noise:5", "checkpoint-before-header:2", "ledger-during-charge"],
        ["checkpoint-after-header:3", "ledger-before-save", "ledger-during-save"],
    ],
)
def test_after_a_kill_no_step_of_a_durable_checkpoint_is_drawn_again(tmp_path: Path, points: list[str]):
    done = 0
    for point in [*points, ""]:
        before = (tmp_path / "draws").read_text().splitlines() if (tmp_path / "draws").exists() else []
        found = attempt(tmp_path, point)
        assert found.returncode == (-signal.SIGKILL if point else 0), found.stderr[-2000:]
        lines = [json.loads(line) for line in (tmp_path / "draws").read_text().splitlines()[len(before) :]]
        assert sum("mask" in line for line in lines) <= 12 - done
        assert sum("noise" in line for line in lines) <= 12 - done
        steps = [line["step"] for line in lines if "step" in line]
        assert all(step > done for step in steps)
        durable = [int(path.stem.split("-")[1]) for path in (tmp_path / "private").glob("checkpoint-*.json")]
        done = max([done, *durable])
    lines = [json.loads(line) for line in (tmp_path / "draws").read_text().splitlines()]
    drawn = [tuple(line["noise"]) for line in lines if "noise" in line]
    assert len(set(drawn)) == len(drawn)
    book = Book(read_entries(tmp_path / "ledgers" / "set"))
    assert book.copies("run/dp-sgd") == 1 and book.attempts("run/dp-sgd")[-1].outcome == "released"
    again = attempt(tmp_path)
    assert again.returncode == 0 and again.stdout == found.stdout
