"""The dashboard over 100,000 runs: first index, rescan, start of the server, every page's time, memory.

`python -m benchmarks.dashboard [--runs N] [--folder DIR] [--force]`. The folders are written first and the disk is left to settle; their
content is then in memory, so that the processor is measured and not the disk.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.record import Row, refuse_when_busy, write_result
from firstlight.files import sha256

ROUNDS = 20
"""How often each page is asked for."""

CONFIG = """name: {model}_on_{data}
seed: {seed}
init_seed: null
order_seed: null
data: {{name: {data}}}
split: {{val_fraction: 0.1, seed: 0, num_train: null}}
input: {{image_size: null, normalize: channel, whiten: 0, num_classes: null}}
augment: {{flip: false, crop: {crop}, rotation: 0.0, color_jitter: 0.0, cutout: 0}}
model:
  name: {model}
  widths: [32, 64, 128]
  dropout: {dropout}
optim: {{name: adamw, lr: {lr!r}, beta1: 0.9, beta2: 0.999, eps: 1.0e-08, weight_decay: {decay!r}}}
schedule: {{name: one_cycle, warmup_epochs: 0.0, peak: 0.3, initial: 0.04, final: 4.0e-06, shape: cosine}}
train: {{epochs: {epochs}, batch_size: {batch}, drop_last: false, accumulate: 1, clip_norm: null, label_smoothing: 0.0, freeze_norm_scale: false, early_size: null, early_share: 0.5, ema_decay: 0.0, monitor: val_loss, patience: null, on_divergence: stop, log_every: 10, test_at_end: true}}
evaluation: {{views: one, views_below: 1.0}}
checkpoint: {{every: 1, every_steps: null, keep_last: 2, keep_every: null}}
device: {{name: auto, precision: float32, memory_format: contiguous, threads: 1, wait_seconds: 60.0, graph: false}}
"""  # noqa: E501
PAGES = [
    "/",
    "/?sort=val_accuracy",
    "/?sort=optim.lr&order=asc",
    "/?sort=optim.weight_decay",
    "/?sort=name&page=500",
    "/?q=model%3Dlenet+optim.lr%3E0.01+val_accuracy%3E0.9&sort=val_loss&order=asc",
    "/?q=12345",
    "/?q=tag%3Dfinal",
    "/?group=model.name",
    "/?group=optim.lr",
    "/?group=train.batch_size&q=data%3Dmnist",
    "/run/ID",
    "/api/run/ID/curves",
    "/reports",
]


def make_run(folder: Path, number: int, draw: random.Random) -> None:
    """Write a light run folder as a training leaves it, of a random setting."""
    values: dict[str, Any] = {
        "seed": number % 5,
        "model": draw.choice(["lenet", "small_cnn", "cnn5", "mlp", "resnet18"]),
        "data": draw.choice(["mnist", "digits", "cifar10"]),
        "crop": draw.choice([0, 2, 4]),
        "dropout": draw.choice([0.0, 0.1, 0.2, 0.5]),
        "lr": 10 ** draw.uniform(-4, 0),
        "decay": 10 ** draw.uniform(-6, -2),
        "epochs": draw.choice([5, 10, 20]),
        "batch": draw.choice([32, 64, 128]),
    }
    accuracy = 1 - draw.uniform(0.001, 0.5) ** 2
    row = {"kind": "epoch", "epoch": 1, "step": 100, "lr": values["lr"], "train_loss": 0.3, "train_accuracy": 0.9, "val_loss": 0.2}
    row |= {"val_accuracy": accuracy, "best": True, "seconds": 0.5}
    started = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(1.79e9 + 60 * number))
    info = {
        "format": 1, "name": folder.name, "started": started, "notes": ["a note"] if number % 50 == 0 else [],
        "tags": ["final"] if number % 200 == 0 else [], "test_openings": [],
        "summary": {"best_epoch": 4, "epochs": values["epochs"], "steps": 4000, "train_loss": 0.1, "train_accuracy": 0.97,
                    "val_loss": draw.uniform(0.01, 0.5), "val_accuracy": accuracy, "seconds": draw.uniform(5, 5000)},
        "environment": {"python": "3.11.7", "packages": {"firstlight": "0.1.0", "torch": "2.13.0+cpu"}, "cpu": "AMD EPYC",
                        "command": ["firstlight", "train"], "git": {"commit": "0" * 40, "changed": False}},
        "seeds": {"seed": values["seed"], "init_seed": None, "order_seed": None, "split_seed": 0},
        "network": {"num_parameters": 94186, "flops_per_image": 1219072},
        "arithmetic": {"device": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1, "probe": None},
        "data": {"source": "made up", "class_names": [str(one) for one in range(10)], "image_shape": [1, 8, 8], "num_train": 1294,
                 "num_val": 144, "train_hash": "db65022601df58e3", "content_hash": "0" * 64},
        "machine": {"device": "cpu", "precision": "float32", "threads": 1}, "ranks": 1, "state": "finished", "seconds": 9.259,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(**values))
    (folder / "run.json").write_text(json.dumps(info, indent=2))
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def make_runs(folder: Path, num: int) -> None:
    """Write so many runs; what is there stays."""
    draw = random.Random(0)
    for number in range(num):
        place = folder / f"run-{number:06d}"
        if not place.exists():
            make_run(place, number, draw)
        else:
            draw.random()


def time_scan(runs_dir: Path, cache: Path) -> dict[str, float]:
    """Return the seconds of the first index, of a rescan, and of the start of an index that is there; in this process."""
    from firstlight.dashboard.index import Index

    found: dict[str, float] = {}
    index = Index(runs_dir, cache)
    for name in ("first_index_seconds", "rescan_seconds", "second_rescan_seconds"):
        began = time.perf_counter()
        for _ in index.scan():
            pass
        found[name] = time.perf_counter() - began
    found["num_runs"] = index.count()
    index.close()
    began = time.perf_counter()
    index = Index(runs_dir, cache)
    found["open_seconds"] = time.perf_counter() - began
    index.close()
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["cache_mib"] = cache.stat().st_size / 2**20
    return found


def time_pages(runs_dir: Path, cache: Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the start of the server, the time of each page in ms (median and 95th percentile), and the memory of the server."""
    environment = {**os.environ, "FIRSTLIGHT_CACHE": str(cache)}
    began = time.perf_counter()
    words = [sys.executable, "-m", "firstlight", "dashboard", "--port", "0", "--runs-dir", str(runs_dir)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        host, port, token = re.fullmatch(r"http://([^:]+):(\d+)/\?token=(.+)", address).groups()  # type: ignore[union-attr]
        connection = HTTPConnection(host, int(port))
        connection.request("GET", f"/?token={token}")
        entry = connection.getresponse()
        entry.read()
        cookie = {"Cookie": entry.headers["set-cookie"].partition(";")[0]}
        found: dict[str, Any] = {"up_seconds": time.perf_counter() - began}
        if not rounds:
            return found
        while True:  # until every folder was looked at once
            connection.request("GET", "/api/version", headers=cookie)
            if json.loads(connection.getresponse().read())["scanned"]:
                break
            time.sleep(0.1)
        connection.request("GET", "/", headers=cookie)
        run_id = re.search(rb"/run/([0-9a-f]{16})", connection.getresponse().read())[1].decode()  # type: ignore[index]
        times: dict[str, list[float]] = {page: [] for page in PAGES}
        for _ in range(rounds):
            for page, seen in times.items():
                start = time.perf_counter()
                connection.request("GET", page.replace("ID", run_id), headers=cookie)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200, (page, answer.status)
                seen.append(1000 * (time.perf_counter() - start))
        found["pages_ms"] = {
            page: [round(quantiles(seen, n=20)[9], 1), round(quantiles(seen, n=20)[18], 1)] for page, seen in times.items()
        }
        found["p95_ms"] = quantiles([one for seen in times.values() for one in seen], n=20)[18]
        status = Path(f"/proc/{server.pid}/status").read_text()
        found["server_peak_mib"] = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
        return found
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def start_seconds(runs_dir: Path, cache: Path) -> float:
    """Return the seconds from the command to the first answer of a server over an index that is there."""
    return float(time_pages(runs_dir, cache, rounds=0)["up_seconds"])


def rows_of(found: dict[str, Any], starts: list[float], num_runs: int) -> list[Row]:
    """Return what was measured beside what the pages must reach."""
    slowest = max(found["pages_ms"], key=lambda page: found["pages_ms"][page][1])
    return [
        {"what": "first index", "value": found["first_index_seconds"], "unit": "s", "n": 1, "most": 10.0, "note": f"{num_runs:,} runs"},
        {"what": "rescan", "value": found["second_rescan_seconds"], "unit": "s", "n": 1, "most": 1.0},
        {
            "what": "any page, 95th percentile",
            "value": found["p95_ms"],
            "unit": "ms",
            "n": ROUNDS * len(PAGES),
            "most": 100.0,
            "note": f"{len(PAGES)} kinds of pages; slowest: {slowest}, median {found['pages_ms'][slowest][0]:g} ms",
        },
        {"what": "memory of the server, peak", "value": found["server_peak_mib"], "unit": "MiB", "n": 1, "most": 300.0},
        {
            "what": "server up: from the command to the first answer",
            "value": median(starts),
            "unit": "s",
            "n": len(starts),
            "most": 0.8,
            "note": f"range {min(starts):.2f} to {max(starts):.2f}",
        },
    ]


def main() -> None:
    """Make the runs, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="run folders (default: 100,000)")
    parser.add_argument("--folder", type=Path, help="where the folders are, and stay; a temporary place otherwise")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine, too; the record says so")
    chosen = parser.parse_args()
    refuse_when_busy(chosen.force)
    home = chosen.folder or Path(tempfile.mkdtemp())
    try:
        make_runs(home / "runs", chosen.runs)
        os.sync()
        (home / "cache" / "dashboard").mkdir(parents=True, exist_ok=True)
        cache = home / "cache" / "dashboard" / f"{sha256(os.fsencode((home / 'runs').resolve()))[:16]}.sqlite"
        cache.unlink(missing_ok=True)
        found = {**time_scan(home / "runs", cache), **time_pages(home / "runs", home / "cache")}
        print(json.dumps(found, indent=2))
        starts = [start_seconds(home / "runs", home / "cache") for _ in range(5)]
        rows = rows_of(found, starts, chosen.runs)
        write_result("dashboard", "The dashboard over 100,000 runs", "python -m benchmarks.dashboard", rows)
    finally:
        if chosen.folder is None:
            shutil.rmtree(home)


if __name__ == "__main__":
    main()
