"""What every local model has in common: its options, the place it runs on, its identity, and how opening it fails.

    AdapterUnavailable     the extra is not installed, the model is not here, cannot be loaded, or does not fit

The identity holds all of what decides a reply beside the settings: the weights, the libraries, the kind of device and the
type of the numbers. So the options that only say how to get there are left out of the cache key: a model may move to
another folder, and a batch may grow.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt

from ..contract import AdapterConfig, AdapterUnavailable, Location, ModelIdentity
from .folder import ModelFolder, located

if TYPE_CHECKING:
    import torch

REVISION = 1
"""Raised whenever a local adapter answers an old request in a new way, so that no saved reply stands in for it."""

Numbers = Literal["float32", "float16", "bfloat16"]

HOW_IT_RUNS = frozenset({"device", "dtype", "batch_size"})
"""Options that change no reply beyond what the identity says already; a batch's size moves last bits at most."""


class LocalConfig(AdapterConfig):
    """Abstract: a kind adds its fields and `open`.

    device      "cpu", "cuda", "cuda:1", "mps"; the accelerator if there is one, else the CPU
    dtype       the numbers; by default float32 on a CPU, and what the kind is known to bear on an accelerator
    batch_size  requests at once; it is halved, and stays so, whenever they do not fit into memory
    """

    location: ClassVar[Location] = Location.LOCAL
    cannot_change_replies: ClassVar[frozenset[str]] = HOW_IT_RUNS

    device: str | None = None
    dtype: Numbers | None = None
    batch_size: PositiveInt | None = None


class FolderConfig(LocalConfig):
    """Abstract: a model that is loaded from a folder.

    model       a folder, or the id of a model of the Hugging Face hub
    revision    the commit of a hub model, which has to be pinned
    download    whether a hub model may be fetched; otherwise it has to be in the local cache
    compile     torch.compile: faster after a slow start, and a reply may differ from the uncompiled one
    """

    cannot_change_replies: ClassVar[frozenset[str]] = HOW_IT_RUNS | {"model", "revision", "download", "offload"}

    model: str = Field(min_length=1)
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    download: bool = False
    compile: bool = False

    def resolved(self, base: Path) -> Self:
        """The same config with a relative folder taken from `base`, if there is one; a hub id stays as it is."""
        beside = base / Path(self.model).expanduser()
        return self.model_copy(update={"model": str(beside)}) if beside.is_dir() else self

    def located(self) -> ModelFolder:
        return located(self.model, kind=self.kind, revision=self.revision, download=self.download)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model runs, and in which numbers."""

    device: torch.device
    dtype: torch.dtype

    @property
    def is_cpu(self) -> bool:
        return self.device.type == "cpu"


def placed(config: LocalConfig, *, accelerated: Numbers) -> Placement:
    """The device and numbers of a config; `accelerated` are the numbers on an accelerator unless the config says others."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    device = torch.device(config.device) if config.device else accelerator or torch.device("cpu")
    if device.type != "cpu" and (accelerator is None or device.type != accelerator.type):
        raise AdapterUnavailable(
            f"{config.kind}: this machine has no device {config.device!r} that torch can use; leave `device` out"
        )
    numbers = config.dtype or ("float32" if device.type == "cpu" else accelerated)
    return Placement(device=device, dtype=getattr(torch, numbers))


def needs_an_accelerator(config: LocalConfig, placement: Placement) -> None:
    """Refuse to offload to main memory what is there already."""
    if placement.is_cpu:
        raise AdapterUnavailable(f"{config.kind}: `offload` needs an accelerator to offload from; leave it out")


def identity_of(name: str, fingerprint: str, placement: Placement, libraries: tuple[str, ...]) -> ModelIdentity:
    """Who answers: equal weights, libraries, kind of device and numbers, equal identity, in every process."""
    code = [f"{library}-{'.'.join(version(library).split('.')[:2])}" for library in libraries]
    numbers = str(placement.dtype).removeprefix("torch.")
    revision = "+".join([fingerprint, *code, placement.device.type, numbers, f"code-{REVISION}"])
    return ModelIdentity(provider=libraries[-1], model=name, revision=revision)


@contextlib.contextmanager
def opening(kind: str, *libraries: str, extra: str = "local") -> Iterator[None]:
    """Imports the libraries, keeps them from chatting, and turns what keeps a model from opening into one line."""
    try:
        for library in libraries:
            importlib.import_module(library)
        with quiet():
            yield
    except AdapterUnavailable:
        raise
    except ModuleNotFoundError as error:
        raise AdapterUnavailable(f"{kind} needs {error.name}: pip install 'privolve[{extra}]'") from None
    except Exception as error:
        # A damaged folder can raise anything, and none of it is ours.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise AdapterUnavailable(f"{kind}: cannot be opened: {lines[0].strip()}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from the libraries, which quote prompts; errors still speak."""
    with contextlib.ExitStack() as stack:
        for library in ("transformers", "diffusers", "sentence_transformers"):
            logger = logging.getLogger(library)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        for restore in _bars_off():
            stack.callback(restore)
        yield


def _bars_off() -> Iterator[Any]:
    """Switches off the progress bars of the libraries that are loaded; yields what switches them on again."""
    for library in ("transformers", "diffusers"):
        bars = sys.modules.get(f"{library}.utils.logging")
        if bars is not None and bars.is_progress_bar_enabled():
            bars.disable_progress_bar()
            yield bars.enable_progress_bar


def load(auto: Any, folder: ModelFolder, placement: Placement, *, offload: bool = False, compile: bool = False) -> Any:
    """A transformers model, ready to answer."""
    spread: Mapping[str, Any] = {"device_map": "auto"} if offload else {}
    model = auto.from_pretrained(
        folder.path, local_files_only=True, use_safetensors=True, dtype=placement.dtype, **spread
    ).eval()
    if not offload:
        model.to(placement.device)
    if compile:
        model.compile()
    return model
