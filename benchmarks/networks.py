"""Line 4: training images a second of one network at one batch, against plain torch, Lightning, Keras on torch and fastai.

`python -m benchmarks.networks [--networks lenet,cnn5,resnet18] [--force] [--peers ...] [--threads N]`: the JPEG copy of CIFAR-10 (or
CIFAR-10 itself, where it is), batch 128, SGD with momentum, no augmentation on either side, loss, accuracy and lr recorded at each step,
validation and checkpoints off the clock everywhere. torch, Lightning and fastai share firstlight's nn.Module and read the images as
torchvision's data sets hand them out, through ToTensor and Normalize in a DataLoader without workers (both cores are busy without them);
Keras gets the same layers and arrays that are normalised beforehand. firstlight chooses its own number format and memory order. The limit
is 6 operations a multiply-add over the rate of the best convolution that this machine ran beside it.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pairs import Measured, equal_within, limit_share, measure, parser, ready_to_measure, record, require_peers, row
from benchmarks.record import Row
from benchmarks.workload import Workload

PEERS = {"torch": "plain torch", "lightning": "Lightning", "keras": "Keras 3 on torch", "fastai": "fastai"}
STEPS = {"lenet": 40, "cnn5": 4, "resnet18": 2}
"""Steps a repetition: a few seconds' worth on two cores (a step of lenet takes some 30 ms, of cnn5 2 s, of resnet18 5 s)."""
BATCH_SIZE = 128
TOLERANCE = 0.05
"""Of loss and distance behind the warm-up: number format and order of the sums differ between the arms."""
LEAST, AIM = 2.3, 3.0


def main() -> None:
    """Measure, print, and write results/networks_<name>.json."""
    words = parser(__doc__, tuple(PEERS), threads=2)
    words.add_argument("--networks", default="lenet", help=f"some of {','.join(STEPS)} (default lenet, the quick one)")
    arguments = words.parse_args()
    networks = arguments.networks.split(",")
    if unknown := set(networks) - set(STEPS):
        words.error(f"unknown networks {', '.join(sorted(unknown))}; known are {', '.join(STEPS)}")
    start = ready_to_measure(arguments)
    for name in networks:
        measured = measure_network(name, arguments)
        title, command = f"Line 4: training images a second, {name}", f"python -m benchmarks.networks --networks {name}"
        record(f"networks_{name}", title, command, rows_of(name, measured), measured, arguments, start)


def settings(name: str, threads: int) -> tuple[str, ...]:
    """Return what makes the experiment of a network."""
    model = "{name: cnn5, width: 64}" if name == "cnn5" else name
    return (
        f"model={model}", "optim={name: sgd, lr: 0.05, momentum: 0.9}", "schedule=constant", "augment={}", "input.normalize=channel",
        "split.val_fraction=0", f"split.num_train={STEPS[name] * BATCH_SIZE}", f"train.batch_size={BATCH_SIZE}",
        "train.label_smoothing=0", f"device.threads={threads}",
    )  # fmt: skip


def measure_network(name: str, arguments: argparse.Namespace) -> dict[str, Measured]:
    """Measure firstlight against each peer on one network."""
    python = str(require_peers())
    with tempfile.TemporaryDirectory() as folder:
        Workload.make("cifar10_cnn5", *settings(name, arguments.threads)).write(Path(folder))

        def command(arm: str) -> Sequence[str]:
            module, items = ("limits", []) if arm == "convs" else ("frameworks", ["--items"])
            return [python, "-m", f"benchmarks.{module}", arm, folder, *items, "--threads", str(arguments.threads)]

        return measure(
            command,
            arguments.peers,
            num_pairs=arguments.pairs,
            threads=arguments.threads,
            check=lambda ours, theirs: equal_within(ours, theirs, tolerance=TOLERANCE),
            limit="convs",
        )


def rows_of(name: str, measured: dict[str, Measured]) -> list[Row]:
    """Return our images a second with their share of the limit, then each peer's with the ratio."""
    rows = []
    if "convs" in measured:
        one = measured["convs"]
        ours = [BATCH_SIZE / cost for cost in one.pairs().ours]
        note = f"{one.ours_ready['arithmetic']}; the limit: {one.theirs_ready['convolution']}"
        rows.append(row(f"{name}: firstlight", ours, "images/s", limit=limit_share(one, units=BATCH_SIZE), note=note))
    for arm, title in PEERS.items():
        if arm in measured:
            one = measured[arm]
            rows.append(row(f"{name}: {title}", [BATCH_SIZE / cost for cost in one.pairs().theirs], "images/s"))
            cpu = sorted(one.pairs("cpu_seconds").times_faster)[len(one.answers) // 2]
            note = f"{cpu:.3g} x in CPU time"
            rows.append(
                row(f"{name}: firstlight over {title}", one.pairs().times_faster, "x", least=LEAST, aim=AIM, guard=one.guard, note=note)
            )
    return rows


if __name__ == "__main__":
    main()
