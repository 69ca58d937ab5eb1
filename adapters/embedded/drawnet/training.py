"""Trains the network and writes its weights and its card: python -m privolve.adapters.embedded.drawnet.training FOLDER

One core, about six minutes. Equal seeds, libraries and processors give equal files.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .network import STRIDES, WIDTHS, Network
from .pictures import ATTRIBUTES, CLASSES, pictures

SEED = 20261122
STEPS = 1600
BATCH = 128
RATE = 4e-3
SETTLING = 60
"""Batches after training, in which the normalisation's means are taken with the final weights."""
HELD_OUT = 4000
COMMAND = "python -m privolve.adapters.embedded.drawnet.training adapters/embedded/drawnet"


class Trained(nn.Module):
    """The network as it is trained: with normalisation, which is folded into the kernels afterwards, and a second head."""

    def __init__(self) -> None:
        super().__init__()
        pairs = list(zip(WIDTHS[:-1], WIDTHS[1:], STRIDES, strict=True))
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, stride=s, padding=1, bias=False) for i, o, s in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o, momentum=0.1) for _, o, _ in pairs)
        self.classes = nn.Linear(WIDTHS[-1], len(CLASSES))
        self.attributes = nn.Linear(WIDTHS[-1], len(ATTRIBUTES))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            values = torch.relu(norm(convolution(values)))
        features = values.mean(dim=(2, 3))
        return self.classes(features), self.attributes(features)


def train(*, steps: int = STEPS, seed: int = SEED) -> Trained:
    """AdamW with one cycle of the rate; every picture is seen once."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = Trained().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps, pct_start=0.2)
    for step in range(steps):
        images, labels, attributes = _batch((seed, 0, step))
        logits, found = model(images)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=0.05)
        loss = loss + 0.5 * nn.functional.smooth_l1_loss(found, attributes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    for norm in model.norms:
        norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = None  # type: ignore[assignment]
    with torch.no_grad():
        for step in range(min(SETTLING, steps)):
            model(_batch((seed, 1, step))[0])
    return model.eval()


def folded(model: Trained) -> dict[str, np.ndarray]:
    """The arrays of the file of weights, float16: the normalisation is a part of each kernel and bias."""
    arrays: dict[str, np.ndarray] = {}
    for layer, (convolution, norm) in enumerate(zip(model.convolutions, model.norms, strict=True)):
        assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        kernel = convolution.weight * scale[:, None, None, None]
        bias = norm.bias - norm.running_mean * scale
        rows = kernel.permute(2, 3, 1, 0).reshape(-1, kernel.shape[0])
        arrays[f"kernel_{layer}"] = rows.detach().numpy().astype(np.float16)
        arrays[f"bias_{layer}"] = bias.detach().numpy().astype(np.float16)
    arrays["class_weights"] = model.classes.weight.T.detach().numpy().astype(np.float16)
    arrays["class_bias"] = model.classes.bias.detach().numpy().astype(np.float16)
    return arrays


def accuracy(network: Network, *, seed: int = SEED) -> dict[str, float]:
    """The share of pictures that were never trained on whose class is found: of all, and of each kind."""
    from .pictures import CHARACTERS, SHAPES

    held_out = pictures(HELD_OUT, seed=(seed, 2))
    hits = network.probabilities(network.features(held_out.pixels)).argmax(axis=1) == held_out.labels
    kinds = np.digitize(held_out.labels, [len(CHARACTERS), len(CHARACTERS) + len(SHAPES)])
    by_kind = {
        kind: float(hits[kinds == index].mean()) for index, kind in enumerate(("characters", "shapes", "textures"))
    }
    return {"all": float(hits.mean()), **by_kind}


def write(folder: Path, arrays: dict[str, np.ndarray], *, steps: int, seed: int) -> None:
    """`weights.npz` and `card.json`."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    figures = accuracy(Network.of(arrays), seed=seed)
    card = {
        "name": "drawnet",
        "what": "five convolutions of 3 x 3 on 32 x 32 colour pixels; 128 features; classes of generated pictures",
        "trained_on": "characters in the faces of matplotlib and Pillow, shapes and textures, all generated by pictures.py",
        "real_pictures": 0,
        "command": COMMAND,
        "seed": seed,
        "pictures": steps * BATCH,
        "parameters": int(sum(array.size for array in arrays.values())),
        "sha256": hashlib.sha256(content.getvalue()).hexdigest(),
        "accuracy_on_held_out_pictures": {name: round(value, 4) for name, value in figures.items()},
        "held_out_pictures": HELD_OUT,
        "classes": len(CLASSES),
        "date": date.today().isoformat(),
        "made_with": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scipy", "matplotlib", "pillow")},
            "threads": 1,
        },
        "licence": "Apache-2.0, as the project",
        "limits": "It was trained on what our own glyph painters draw with: figures that compare them with other methods "
        "should come from a second network too. It has seen no photograph.",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.npz").write_bytes(content.getvalue())
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _batch(seed: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    drawn = pictures(BATCH, seed=seed)
    images = torch.from_numpy(drawn.pixels).permute(0, 3, 1, 2).float() / 255 - 0.5
    return images, torch.from_numpy(drawn.labels), torch.from_numpy(drawn.attributes)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the network that ships with the project.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=SEED)
    asked = parser.parse_args()
    write(asked.folder, folded(train(steps=asked.steps, seed=asked.seed)), steps=asked.steps, seed=asked.seed)


if __name__ == "__main__":
    main()
