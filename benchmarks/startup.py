"""What `firstlight --help` costs: processor time and wall time of a whole process, beside Python alone and `import torch`.

`python -m benchmarks.startup [--force]`. The three take turns, A B C A B C; the first turn, which fills the disk cache, is left out.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from benchmarks.record import Row, refuse_when_busy, write_result

TURNS = 7
MOST_SECONDS = 0.5
"""Processor time that `--help` may take."""
COMMANDS = {
    "firstlight --help": [sys.executable, "-m", "firstlight", "--help"],
    "python -c pass": [sys.executable, "-c", "pass"],
    'python -c "import torch"': [sys.executable, "-c", "import torch"],
}


def main() -> None:
    """Measure, print, and write results/startup.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    refuse_when_busy(parser.parse_args().force)
    turns = [{name: cost(command) for name, command in COMMANDS.items()} for _ in range(TURNS + 1)][1:]
    rows = [row for name in COMMANDS for row in rows_of(name, [turn[name] for turn in turns])]
    for row in rows:
        print(f"{row['what']}: {row['value']:.3f} {row['unit']} {row['note']}")
    print(write_result("startup", "What a command costs before it does anything", "python -m benchmarks.startup", rows))


def cost(command: list[str]) -> tuple[float, float]:
    """Return the processor seconds (user and system) and the wall seconds of a process."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system, wall


def rows_of(name: str, costs: list[tuple[float, float]]) -> list[Row]:
    """Return the medians of a command's costs as rows, with their ranges."""
    rows = []
    for kind, values in zip(("processor", "wall"), zip(*costs, strict=True), strict=True):
        row: Row = {"what": f"{name}, {kind} time", "value": statistics.median(values), "unit": "s", "n": len(values)}
        row["note"] = f"range {min(values):.3f} to {max(values):.3f}"
        if (name, kind) == ("firstlight --help", "processor"):
            row["most"] = MOST_SECONDS
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
