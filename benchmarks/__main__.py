"""`make bench`: every quick benchmark, each in a process of its own, one after the other; RECORDS.md is written anew."""

import subprocess
import sys

QUICK = ("loader", "startup", "accuracy", "one_epoch")


def main() -> None:
    """Run them all, and fail if one does."""
    for name in QUICK:
        print(f"benchmarks.{name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
