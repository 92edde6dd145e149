"""Whether the parts that `profile throughput` shows make up the step: their sum over the step that nobody parted, by pairs of rounds.

`python -m benchmarks.profile_parts [--force] [--rounds N]`. Whole rounds and rounds with marks take turns, A B A B, in the same process,
each of about 0.12 s, at the batch size of the experiment, in the arithmetic that the experiment settles on.
"""

import argparse
import os
import tempfile
from pathlib import Path

import firstlight as fl
from benchmarks.record import Row, machine, number, refuse_when_busy, write_result
from firstlight.engine.memory import keep_freed_memory
from firstlight.engine.train import prepare
from firstlight.profiling.parts import Timing, measure_parts, training_on

EXPERIMENTS = ("quickstart", "mnist_mlp", "lenet")
LEAST, MOST = 0.95, 1.05
"""What the specification asks for: the sum within 5 % of the step."""


def main() -> None:
    """Measure, print, and write results/profile_parts.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too")
    parser.add_argument("--rounds", type=int, default=15, help="pairs of rounds for each experiment")
    args = parser.parse_args()
    refuse_when_busy(args.force)
    rows = [row for name in EXPERIMENTS for row in rows_of(name, measure(name, args.rounds))]
    for row in rows:
        print(f"{number(row['value']):>10} {row['unit']:3} {row['what']}  {row.get('note', '')}")
    title, here = "The parts of a training step against the whole", {**machine(), "forced": args.force}
    print(write_result("profile_parts", title, "python -m benchmarks.profile_parts", rows, here))


def measure(name: str, num_rounds: int) -> Timing:
    """Return the timing of an experiment's steps at its own batch size."""
    prepared = prepare(fl.load_config(name), Path(os.environ["FIRSTLIGHT_DATA"]))
    batch_size = prepared.setup.train.batch_size
    with (
        tempfile.TemporaryDirectory() as scratch,
        prepared.setup.arithmetic.on_threads(),
        keep_freed_memory(),
        training_on(prepared, batch_size, Path(scratch) / "run") as training,
    ):
        return measure_parts(training, batch_size, num_rounds=num_rounds)


def rows_of(name: str, timing: Timing) -> list[Row]:
    """Return the ratio of an experiment with its range, and the shares of its parts."""
    pairs = zip(timing.whole_seconds, timing.parts_seconds, strict=True)
    ratios = [sum(parts.values()) / whole for whole, parts in pairs]
    where = f"{name}, batch {timing.batch_size}"
    shares = ", ".join(f"{part} {seconds / sum(timing.parts.values()):.1%}" for part, seconds in timing.parts.items())
    num = len(ratios)
    return [
        {
            "what": f"sum of the parts over the step, {where}",
            "value": timing.sum_over_whole,
            "unit": "x",
            "n": num,
            "least": LEAST,
            "most": MOST,
            "note": f"range {number(min(ratios))} to {number(max(ratios))}",
        },
        {"what": f"step, {where}", "value": 1e3 * timing.seconds, "unit": "ms", "n": num, "note": shares},
    ]


if __name__ == "__main__":
    main()
