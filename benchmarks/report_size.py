"""A report of a study of 100 trials: its bytes, the time to make it, and the time until a browser has it open.

`python -m benchmarks.report_size [--repeats 7] [--force]`. The study is trained first (digits, 50 points, two seeds, side by side). The
file is opened in a headless Chromium that is already there: from the start of the navigation until all of it stands (domComplete).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.chromium import Chromium
from benchmarks.record import Row, machine, refuse_when_busy, write_result

MOST_BYTES = 5_000_000
MOST_SECONDS = 2.0
EXPERIMENT = """
data: digits
model: {name: mlp, hidden: [16]}
optim: {name: sgd, lr: 0.1, momentum: 0.9}
train: {epochs: 20, batch_size: 64}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""
OPENED = "(() => { const found = performance.getEntriesByType('navigation')[0]; return found.domComplete - found.startTime; })()"


def main() -> None:
    """Measure, print, and write results/report_size.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--force", action="store_true", help="measure on a busy machine, too")
    arguments = parser.parse_args()
    refuse_when_busy(arguments.force)
    here = {**machine(), "forced": arguments.force}
    with tempfile.TemporaryDirectory() as folder:
        study = train_study(Path(folder))
        made = [make_report(study) for _ in range(arguments.repeats)]
        opened = open_times(Path(made[0]["report"]), arguments.repeats)
        num_trials = len((study / "trials.jsonl").read_text(encoding="utf-8").splitlines())
    repeats: Row = {"n": arguments.repeats}
    rows: list[Row] = [
        {"what": f"report of a study of {num_trials} trials", "value": made[0]["num_bytes"], "unit": "bytes", "most": MOST_BYTES, "n": 1},
        {"what": "to open it in Chromium (domComplete)", "value": median(opened), "unit": "s", "most": MOST_SECONDS, **repeats},
        {"what": "the slowest of them", "value": max(opened), "unit": "s", "most": MOST_SECONDS, **repeats},
        {"what": "to make it", "value": median(one["seconds"] for one in made), "unit": "s", **repeats, "note": "tables and pictures anew"},
    ]
    for row in rows:
        print(f"{row['what']}: {row['value']:.4g} {row['unit']}")
    print(write_result("report_size", "A report of 100 trials", "python -m benchmarks.report_size", rows, here))


def train_study(folder: Path) -> Path:
    """Carry out the study and return its folder."""
    (folder / "tiny.yaml").write_text(EXPERIMENT, encoding="utf-8")
    grid = ["--grid", "optim.lr=log:1e-3:1:10", "--grid", "optim.momentum=lin:0:0.9:5", "--seeds", "2", "--lanes", "on"]
    firstlight("sweep", str(folder / "tiny.yaml"), *grid, "--name", "hundred", "--runs-dir", str(folder))
    return folder / "hundred"


def make_report(study: Path) -> Row:
    """Make the report in a process of its own, and return what the command says."""
    found: Row = json.loads(firstlight("report", str(study), "--json"))
    return found


def open_times(page: Path, repeats: int) -> list[float]:
    """Return the seconds that a browser takes to open a file; the first time, which fills its caches, is left out."""
    times = []
    with Chromium() as browser:
        for _ in range(repeats + 1):
            browser.open(page)
            times.append(browser.run(OPENED) / 1000)
    return times[1:]


def firstlight(*words: str) -> str:
    """Run a command and return what it prints."""
    return subprocess.run([sys.executable, "-m", "firstlight", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
