"""Does training on private records help? Every trained method's digits example over several seeds, against its floor.

python benchmarks/training.py                         every method, 3 seeds; exit 1 unless every difference is clear
python benchmarks/training.py dpdm dp-feta            these alone
python benchmarks/training.py --kept runs.jsonl       runs that were measured before are not run again

The floor is the same for all but for its first part: the better of the method's own public-only model and the glyphs that Private
Evolution begins with (`examples/digits/image-pe.toml`), by accuracy on held-out real digits, seed by seed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from measured import EXAMPLES, Measured, measure, table

from privolve.evaluation.classifier import CEILING, FINAL, INITIAL
from privolve.evaluation.seeds import paired_difference
from privolve.trainers.registry import METHODS

GLYPHS = "image-pe"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="(default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument(
        "--kept", type=Path, help="a file to which finished runs are appended, and from which they are read"
    )
    options = parser.parse_args()
    methods = options.methods or list(METHODS)
    runs = {
        (name, seed): _measured(name, seed, options.epsilon, options.kept)
        for seed in range(options.seeds)
        for name in (GLYPHS, *methods)
    }
    rows, clear = [], True
    for name in methods:
        mine = [runs[name, seed].accuracy for seed in range(options.seeds)]
        glyphs = [runs[GLYPHS, seed].accuracy[INITIAL] for seed in range(options.seeds)]
        floors = [max(each.get(INITIAL, 0.0), drawn) for each, drawn in zip(mine, glyphs, strict=True)]
        gain = paired_difference([each[FINAL] for each in mine], floors)
        clear &= gain.is_clear
        public = [each[INITIAL] for each in mine if INITIAL in each]
        rows.append(
            [
                name,
                f"{runs[name, 0].epsilon:g}",
                f"{mean(each[FINAL] for each in mine):.1%}",
                f"{mean(public):.1%}" if public else "none",
                f"{mean(glyphs):.1%}",
                f"{mean(each[CEILING] for each in mine):.1%}",
                f"{100 * gain.mean:+.1f} ± {200 * gain.standard_error:.1f}",
                f"{mean(runs[name, seed].cpu_seconds for seed in range(options.seeds)):.0f}",
            ]
        )
    head = [
        "method",
        "epsilon",
        "final",
        "public-only model",
        "initial glyphs",
        CEILING,
        "final - floor",
        "CPU seconds",
    ]
    print(table(head, rows))
    print(
        f"\nAccuracy on held-out real digits of a logistic regression trained on each set, mean over {options.seeds} seeds; "
        "differences in points, by seed, ± 2 standard errors."
    )
    return 0 if clear else 1


def _measured(name: str, seed: int, epsilon: float, kept: Path | None) -> Measured:
    key = {"name": name, "seed": seed, "epsilon": epsilon}
    if kept is not None and kept.exists():
        for line in kept.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            if found["key"] == key:
                return Measured(**found["measured"])
    settings = [f"seed={seed}", *([] if name == GLYPHS else [f"privacy.epsilon={epsilon}"])]
    measured = measure(EXAMPLES / "digits" / f"{name}.toml", *settings)
    if kept is not None:
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "measured": asdict(measured)}) + "\n")
    return measured


if __name__ == "__main__":
    raise SystemExit(main())
