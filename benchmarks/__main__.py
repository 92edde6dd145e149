"""`make bench`: the quick benchmarks, each in a process of its own, one after the other; RECORDS.md is written anew.

`make bench-all` (`python -m benchmarks --all`) adds those that take long; `make bench-gpu` (`--gpu`) runs the lines for a CUDA GPU alone.
--force goes to every one that measures time.
"""

import argparse
import subprocess
import sys

import torch

QUICK = (("tiny_step",), ("step_parts",), ("scalars",), ("loader",), ("startup",), ("submission",), ("networks", "--networks", "lenet"))
LONG = (
    *(("networks", "--networks", "cnn5,resnet18"), ("mnist_99",), ("cifar10_fast",), ("safety",), ("accuracy",), ("one_epoch",)),
    *(
        ("hdf5",),
        ("shards",),
        ("many_shards",),
        ("shuffle",),
        ("ranks",),
        ("lanes",),
        ("study_grid",),
        ("study_bookkeeping",),
        ("study_workers",),
        ("report_size",),
    ),
    *(("profile_parts",), ("corruption_naming",), ("uncertainty_memory",)),
)
GPU = (("cifar10_gpu",), ("cifar10_gpu", "--graph"), ("accuracy", "cifar10_cnn5", "alexnet", "resnet18_cifar10"))
NOT_TIMED = ("shuffle", "many_shards", "corruption_naming", "accuracy", "cifar10_gpu", "one_epoch", "study_workers", "uncertainty_memory")


def main() -> None:
    """Run them all, and fail if one does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the long ones, too")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine, too; the records say so")
    parser.add_argument("--gpu", action="store_true", help="those that need a CUDA GPU, and no other")
    arguments = parser.parse_args()
    if arguments.gpu and not torch.cuda.is_available():
        sys.exit("these lines need a CUDA GPU, and torch sees none")
    failed = []
    for name, *words in GPU if arguments.gpu else (*QUICK, *(LONG if arguments.all else ())):
        force = ["--force"] if arguments.force and name not in NOT_TIMED else []
        command = ["-m", f"benchmarks.{name}", *words, *force]
        print(" ".join(["python", *command]), file=sys.stderr, flush=True)
        if subprocess.run([sys.executable, *command], check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"these failed, and their records stand as they were: {', '.join(failed)}")


if __name__ == "__main__":
    main()
