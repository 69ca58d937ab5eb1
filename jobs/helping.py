"""What a process beside the first does for a training job: it draws who takes part of its share, and adds up gradients."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from ..data.private_set import Split
from ..data.training_records import training_records
from ..privacy.accounting import default_delta
from ..privacy.mechanism import PrivacyTarget
from ..trainers.contract import PublicImages
from . import several
from .job import InputError
from .public_set import public_images
from .train import Painted, TrainConfig
from .training_bench import HelpingBench
from .training_design import Design, check, shape_of


def help_training(config: TrainConfig) -> None:
    """Take part in the training that the first process runs, if it runs one. Writes no file and prints nothing."""
    with several.together():
        order, arrays = several.share()
        if not order["train"]:
            return
        data = config.split()
        check(config, data)
        design = _design(config, data, order["noise_multiplier"])
        public = (
            public_images(config, design.shape, None, Unwritten()) if not isinstance(config.public, Painted) else None
        )
        if isinstance(config.public, Painted):
            public = PublicImages(**arrays, classes=tuple(order["classes"]), digest=order["public"])
        if data.train.count != order["slots"] or (public.digest if public else "") != order["public"]:
            raise InputError(
                f"[data] {data.train.name!r}: this process reads other records than the first; give all of them the same files"
            )
        with TemporaryDirectory() as folder:
            bench = HelpingBench(
                config=config,
                design=design,
                public=public,
                records=training_records(data.train),
                folder=Path(folder),
            )
            config.trainer.train(design.sgd, bench)


def invite(design: Design, public: PublicImages | None, *, painted: bool) -> None:
    """Tell the processes beside this one, the first, what they need to take part."""
    several.share(
        {
            "train": True,
            "noise_multiplier": None if design.sgd is None else design.sgd.noise_multiplier,
            "slots": design.shape.slots,
            "public": public.digest if public else "",
            "classes": list(public.classes) if public else [],
        },
        {"pixels": public.pixels, "labels": public.labels} if public and painted else {},
    )


class Unwritten:
    """The first process journals what is disclosed; the same set is opened here."""

    def disclosed(self, *, partition: str, why: str) -> None:
        pass


def _design(config: TrainConfig, data: Split, noise_multiplier: float | None) -> Design:
    """As the first process calibrated it."""
    shape, privacy = shape_of(data.train), config.privacy
    training = config.trainer.dp_sgd(shape)
    return Design(
        shape=shape,
        target=PrivacyTarget(
            epsilon=privacy.epsilon, delta=privacy.delta or default_delta(shape.slots), unit=privacy.unit
        ),
        sgd=None if training is None or noise_multiplier is None else training.with_noise(noise_multiplier),
        queries=config.trainer.queries(shape),
    )
