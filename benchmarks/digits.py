"""Do the votes help? Both digits examples over several seeds: the final set against the initial one and random selection.

python benchmarks/digits.py            5 seeds, a Markdown table; exit 1 unless every difference is clear
"""

from __future__ import annotations

import argparse
from statistics import mean

from measured import EXAMPLES, Measured, measure, table

from privolve.evaluation.classifier import FINAL, INITIAL, RANDOM, TRAINING_SETS
from privolve.evaluation.seeds import Paired, paired_difference


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    rows, clear = [], True
    for name in ("dpiti", "image-pe"):
        runs = [measure(EXAMPLES / "digits" / f"{name}.toml", f"seed={seed}") for seed in range(seeds)]
        gains = [_gain(runs, over) for over in (INITIAL, RANDOM)]
        clear &= all(gain.is_clear for gain in gains)
        rows.append(
            [
                name,
                f"{runs[0].epsilon:g}",
                *(f"{mean(run.accuracy[trained_on] for run in runs):.1%}" for trained_on in TRAINING_SETS),
                *(f"{100 * gain.mean:+.1f} ± {200 * gain.standard_error:.1f}" for gain in gains),
                f"{mean(run.seconds for run in runs):.1f}",
                f"{mean(run.cpu_seconds for run in runs):.1f}",
            ]
        )
    head = ["example", "epsilon", *TRAINING_SETS, "final - initial", "final - random", "seconds", "CPU seconds"]
    print(table(head, rows))
    print(
        f"\nAccuracy on held-out real digits of a logistic regression trained on each set, mean over {seeds} seeds; "
        "differences in points, by seed, ± 2 standard errors."
    )
    return 0 if clear else 1


def _gain(runs: list[Measured], over: str) -> Paired:
    return paired_difference([run.accuracy[FINAL] for run in runs], [run.accuracy[over] for run in runs])


if __name__ == "__main__":
    raise SystemExit(main())
