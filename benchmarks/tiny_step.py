"""Line 5: microseconds of a training step of a tiny network with full logging, against five frameworks and a raw loop.

`python -m benchmarks.tiny_step [--force] [--peers torch,lightning] [--pairs N]`: 784-16-10 on MNIST in batches of 32, SGD with momentum;
a repetition is an epoch of 1,000 steps. Every arm records loss, accuracy and lr as it goes: firstlight in a run folder, the raw loop in
lists (with loss.item(), as the tutorial has it), the others where they keep such figures. The limit is the step's matrix products alone.
"""

import tempfile
from pathlib import Path

from benchmarks.pairs import Measured, equal_within, limit_share, measure, parser, ready_to_measure, record, require_peers, row
from benchmarks.record import Row
from benchmarks.workload import Workload

PEERS = {
    "torch": ("raw PyTorch loop", {"most": 0.5}),
    "skorch": ("skorch", {}),
    "fastai": ("fastai", {}),
    "lightning": ("Lightning, its default logger (every 50th step)", {"most": 0.15}),
    "lightning_every_step": ("Lightning, its default logger at every step", {}),
    "keras": ("Keras 3 on torch", {}),
}
"""The arm, its name, and what is needed of our share of its cost."""
SETTINGS = (
    "data=mnist", "model={name: mlp, hidden: [16]}", "optim={name: sgd, lr: 0.02, momentum: 0.9}", "schedule=constant",
    "split.val_fraction=0", "split.num_train=32000", "train.batch_size=32", "device.threads=1",
)  # fmt: skip


def main() -> None:
    """Measure, print, and write results/tiny_step.json."""
    arguments = parser(__doc__, tuple(PEERS)).parse_args()
    start, python = ready_to_measure(arguments), str(require_peers())
    with tempfile.TemporaryDirectory() as folder:
        Workload.make("mnist_mlp", *SETTINGS).write(Path(folder))

        def command(arm: str) -> list[str]:
            module, name = ("limits", arm) if arm == "gemms" else ("frameworks", arm)
            return [python, "-m", f"benchmarks.{module}", name, folder, "--threads", str(arguments.threads)]

        measured = measure(
            command,
            arguments.peers,
            num_pairs=arguments.pairs,
            threads=arguments.threads,
            check=lambda ours, theirs: equal_within(ours, theirs, tolerance=0.02),
            limit="gemms",
        )
    title = "Line 5: a training step of a tiny network, full logging"
    record("tiny_step", title, "python -m benchmarks.tiny_step", rows_of(measured), measured, arguments, start)


def rows_of(measured: dict[str, Measured]) -> list[Row]:
    """Return our step's time with its share of the limit, then each peer's time and our share of it."""
    rows = []
    if "gemms" in measured:
        ours, bare = measured["gemms"].pairs().ours, measured["gemms"].pairs().theirs
        aim = {"limit": limit_share(measured["gemms"])}
        rows.append(row("firstlight", [1e6 * seconds for seconds in ours], "us", **aim))
        rows.append(row("the matrix products alone", [1e6 * seconds for seconds in bare], "us"))
    for arm, (name, needed) in PEERS.items():
        if arm in measured:
            one = measured[arm]
            rows.append(row(name, [1e6 * seconds for seconds in one.pairs().theirs], "us"))
            cpu = sorted(one.pairs("cpu_seconds").share)[len(one.answers) // 2]
            rows.append(row(f"firstlight over {name}", one.pairs().share, "x", guard=one.guard, note=f"{cpu:.3g} x its CPU time", **needed))
    return rows


if __name__ == "__main__":
    main()
