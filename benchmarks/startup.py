"""How long `privolve --help` takes, as a ratio to `python -c pass` in the same run (median of interleaved pairs)."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=21)
    pairs = parser.parse_args().pairs
    ours = [str(Path(sys.executable).with_name("privolve")), "--help"]
    theirs = [sys.executable, "-c", "pass"]
    timed = [(seconds(ours), seconds(theirs)) for _ in range(pairs)]
    ratio = statistics.median(a / b for a, b in timed)
    print(
        f"privolve --help: {statistics.median(a for a, _ in timed) * 1000:.0f} ms, {ratio:.1f} times `python -c pass`"
    )


if __name__ == "__main__":
    main()
