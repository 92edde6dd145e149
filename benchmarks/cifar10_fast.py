"""Line 3: seconds to 85 % on the JPEG copy of CIFAR-10, against the course's own loop on the same cores.

`python -m benchmarks.cifar10_fast [--force] [--recipe cifar10_fast_85] [--threads 2]`. The two take turns, five times: 40 steps of the
course's loop (its 5-layer CNN, SGD 0.1, batches of 128 from a DataLoader over PIL images and ToTensor, in torch's default arithmetic),
then one whole `fl.train` of the recipe, with another seed each time. The course trains 15 epochs of 391 steps; its time is extrapolated
from the 40 steps of each turn, 200 in all, and has no validation and no test in it. Ours is everything behind `import firstlight`:
reading the data, choosing the arithmetic, training, validation, the sealed test with its further views, checkpoints, pictures. The guard is
the mean test accuracy of the five seeds; the limit is the recipe's own arithmetic at the rate of the best convolution measured beside it.
"""

import argparse
import statistics
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.pairs import LEAST_PAIRS, Measured, measure, parser, ready_to_measure, record, require_peers, row
from benchmarks.record import Row
from benchmarks.turns import Turns

STEPS_A_TURN = 40
COURSE_STEPS = 15 * 391
LEAST_ACCURACY, MOST_SECONDS = 0.85, 240


def main() -> None:
    """Measure, print, and write results/cifar10_fast.json; or be the arm that --arm names."""
    words = parser(__doc__, ("course",), threads=2, pairs=LEAST_PAIRS)
    words.add_argument("--recipe", default="cifar10_fast_85", help="the experiment (default cifar10_fast_85)")
    words.add_argument("--arm", choices=("course", "firstlight"), help=argparse.SUPPRESS)
    words.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = words.parse_args()
    if arguments.arm:
        be_arm(arguments.arm, arguments.recipe, arguments.folder, arguments.threads)
        return
    from benchmarks.workload import Workload

    start, python = ready_to_measure(arguments), str(require_peers())
    num_images = STEPS_A_TURN * 128
    workload = Workload.make("cifar10_cnn5", "split.val_fraction=0", f"split.num_train={num_images}", "train.epochs=1")
    with tempfile.TemporaryDirectory() as name:
        folder = workload.write(Path(name))
        command = [python, "-m", "benchmarks.cifar10_fast", "--recipe", arguments.recipe, "--threads", str(arguments.threads)]
        measured = measure(
            lambda arm: [*command, "--folder", str(folder), "--arm", arm],
            arguments.peers,
            num_pairs=arguments.pairs,
            threads=arguments.threads,
            check=lambda *_: "",
        )
    if not measured:
        sys.exit("nothing was measured; the lines above say why")
    title = f"Line 3: seconds to 85 % on CIFAR-10 (JPEG copy), {arguments.threads} threads"
    rows = rows_of(measured["course"], arguments.recipe)
    record("cifar10_fast", title, "python -m benchmarks.cifar10_fast", rows, measured, arguments, start)


def rows_of(measured: Measured, recipe: str) -> list[Row]:
    """Return our seconds, the course's, and how often ours go into theirs."""
    ours, theirs = ([answer[arm] for answer in measured.answers] for arm in (0, 1))
    seconds = [answer["seconds"] for answer in ours]
    course = [answer["seconds"] / answer["count"] * COURSE_STEPS for answer in theirs]
    accuracies = [answer["accuracy"] for answer in ours]
    reached = statistics.mean(accuracies)
    guard = f"mean test accuracy {reached:.4f} of {len(ours)} seeds ({min(accuracies):.4f} to {max(accuracies):.4f})"
    if reached < LEAST_ACCURACY:
        guard += f": below {LEAST_ACCURACY}, so its time does not count"
    limit = f"{100 * statistics.median(answer['limit_seconds'] / answer['seconds'] for answer in ours):.3g} %"
    training = statistics.median(answer["training_seconds"] for answer in ours)
    note = f"of these {training:.0f} s in the training loop; {ours[0]['flops'] / 1e12:.3g} TFLOP"
    ratios = [their / our for our, their in zip(seconds, course, strict=True)]
    return [
        row(f"firstlight train {recipe}", seconds, "s", guard=guard, limit=limit, note=note, aim_most=MOST_SECONDS),
        row(f"the course's loop, {COURSE_STEPS:,} steps, from {STEPS_A_TURN} a turn", course, "s"),
        row("the course's loop over firstlight", ratios, "x", guard=guard, least=40, aim=60),
    ]


def be_arm(name: str, recipe: str, folder: Path, threads: int) -> None:
    """Do one repetition a word."""
    import torch

    turns = Turns()
    torch.set_num_threads(threads)
    if name == "course":
        course(folder, turns)
    else:
        firstlight(recipe, threads, turns)


def course(folder: Path, turns: Turns) -> None:
    """Train as the course does: its network in torch's defaults, a DataLoader over PIL images, the running loss fetched each step."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms

    from benchmarks.frameworks import PilImages
    from benchmarks.workload import Workload

    workload = Workload.read(folder)
    dataset = PilImages(workload)
    dataset.transform = transforms.ToTensor()  # pixels in [0, 1], nothing else
    loader = DataLoader(dataset, batch_size=workload.batch_size, shuffle=True)
    model = workload.build_model()
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1)

    def epoch() -> int:
        running_loss = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        return workload.num_steps

    turns.repeat(epoch)


def firstlight(recipe: str, threads: int, turns: Turns) -> None:
    """Train seed after seed; the warm-up is one on a hundredth of the images."""
    import firstlight as fl
    from benchmarks.limits import cases, rate
    from firstlight.tracking.console import Console

    best = max(cases(), key=lambda case: rate(*case))
    for number in count():
        turns.begin()
        with tempfile.TemporaryDirectory() as runs_dir:
            words = [f"seed={number}", f"device.threads={threads}", "train.test_at_end=true"]
            words += ["split.num_train=1000"] if turns.is_warm_up else []
            run = fl.train(recipe, *words, runs_dir=runs_dir, console=Console(quiet=True))
            facts = {"accuracy": run.summary["test_accuracy"], "training_seconds": sum(row["seconds"] for row in run.epochs)}
            flops = training_flops(run)  # on the clock, some 0.1 s: the weights lie in the folder that goes with the block
        turns.end(1, **facts, flops=flops, limit_seconds=flops / rate(*best))


def training_flops(run: Any) -> float:
    """Return the operations of a training, 6 a multiply-add, with the steps on smaller images counted as such."""
    import firstlight as fl
    from firstlight.models.flops import flops_per_image

    config = run.config
    train, model, shape = config["train"], fl.load_model(run.path), tuple(run.info["data"]["image_shape"])
    images = run.summary["steps"] * train["batch_size"]
    early = train["early_share"] if train["early_size"] else 0.0
    small = flops_per_image(model, (shape[0], train["early_size"], train["early_size"])) if early else 0
    return float(3 * images * (early * small + (1 - early) * flops_per_image(model, shape)))


if __name__ == "__main__":
    main()
