"""One training in several processes (F10): real ranks, started by torchrun on this machine, which talk by gloo."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import firstlight as fl
from firstlight.data.augment import Augment
from firstlight.data.digits import load_digits
from firstlight.data.loader import Loader, Shard
from firstlight.data.normalize import Normalize
from firstlight.engine.distributed import ranks_in
from firstlight.errors import ConfigError, FirstlightError
from firstlight.tracking.console import Console

FIXED = "device={name: cpu, precision: float32, memory_format: contiguous, threads: 1}"
STEPS = ["train.log_every=7", "train.epochs=5", FIXED]
"""5 epochs of 12 and more steps."""
JOBS = {
    "norm, dropout, odd batches": [
        "split.num_train=201",
        "train.batch_size=16",
        "model={name: small_cnn, widths: [4, 8], dropout: 0.3}",
        "augment.crop=1",
    ],
    "a last batch of one image": ["split.num_train=193", "train.batch_size=16", "model={name: small_cnn, widths: [4, 8]}"],
    "accumulation, clipping, average": [
        *("split.num_train=240", "train.batch_size=5", "train.accumulate=4", "train.clip_norm=0.5", "train.ema_decay=0.9"),
        *("model={name: mlp, hidden: [16], norm: before, dropout: 0.2}", "optim={name: sgd, lr: 0.1, momentum: 0.9}"),
        *("train.label_smoothing=0.1", "augment={flip: true, rotation: 10, cutout: 3}"),
    ],
    "raw tensors": ["split.num_train=250", "train.batch_size=16", "model={name: scratch_mlp, hidden: [16]}", "optim={name: sgd, lr: 0.1}"],
    "muon, whitening, frozen scales, small images first": [
        *(
            "split.num_train=250",
            "train.batch_size=16",
            "model={name: small_cnn, widths: [4, 8]}",
            "optim={name: muon, lr: 0.01}",
            "input.whiten=2",
        ),
        *("train.freeze_norm_scale=true", "train.early_size=6"),
    ],
}
PORTS = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]


def torchrun(*words: str, cwd: Path, max_restarts: int = 0) -> subprocess.Popen[str]:
    """Start `torchrun --nproc-per-node 2 -m firstlight WORDS` with pipes, in a session of its own."""
    restarts = ["--max-restarts", str(max_restarts), "--monitor-interval", "0.1"] if max_restarts else []
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *PORTS, *restarts, "-m", "firstlight", *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "FIRSTLIGHT_CACHE": str(cwd / "cache"), "FIRSTLIGHT_RUNS": str(cwd / "runs")},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(agent: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Return torchrun's exit code and the lines of stderr, among them its own long report about processes that failed."""
    _, err = agent.communicate(timeout=100)
    return agent.returncode, err.splitlines()


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in ("seconds", "memory_mib")} for row in fl.load_run(run).rows]


class Forked:
    """Two ranks that were started without torchrun."""

    def __init__(self, forker: subprocess.Popen[str], ranks: list[dict[str, Any]]) -> None:
        self._forker = forker
        self._ranks = ranks
        self.pids = dict(enumerate(self._ask(json.dumps(ranks))))

    def finish(self) -> tuple[list[int], list[str], list[str]]:
        """Return the exit codes, and what each printed on stdout and stderr."""
        codes = self._ask("wait")
        said = [
            [(Path(rank["folder"]) / f"{name}-{number}").read_text() for number, rank in enumerate(self._ranks)] for name in ("out", "err")
        ]
        return codes, said[0], said[1]

    def _ask(self, line: str) -> list[int]:
        assert self._forker.stdin is not None and self._forker.stdout is not None
        print(line, file=self._forker.stdin, flush=True)
        answer: list[int] = json.loads(self._forker.stdout.readline())
        return answer


Start = Callable[..., Forked]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Return `start(*words, cwd=..., folders=..., odd=...)`: two ranks, each in its folder of `cwd`; `odd` is one more word for rank 1."""
    script = Path(__file__).with_name("ranks_forker.py")
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as forker:

        def begin(
            *words: str,
            cwd: Path,
            folders: tuple[str, str] = (".", "."),
            odd: str | None = None,
            commands: Any = None,
            environment: Any = None,
        ) -> Forked:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "FIRSTLIGHT_RUNS": str(cwd / "runs")}
            return Forked(
                forker,
                [
                    {
                        "commands": commands or [[*words, *([odd] if odd and rank else [])]],
                        "folder": str(cwd / folders[rank]),
                        "environment": {**place, **(environment or {}), "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    }
                    for rank in range(2)
                ],
            )

        yield begin
        assert forker.stdin is not None
        forker.stdin.close()


@pytest.fixture(scope="module")
def trained(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: each of JOBS by two ranks, one after the other in the same processes, and by one process as `alone-...`."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = start(commands=[["train", "quickstart", *STEPS, *words, "--name", name] for name, words in JOBS.items()], cwd=folder)
    for name, words in JOBS.items():
        fl.train("quickstart", *STEPS, *words, name=f"alone-{name}", runs_dir=folder / "runs", console=Console(quiet=True))
    codes, _, err = ranks.finish()
    assert codes == [0, 0], err
    return folder / "runs"


@pytest.mark.parametrize("name", JOBS)
def test_two_ranks_train_as_one_process_does(trained: Path, name: str) -> None:
    """F10: the same global batch, the same losses of 50 steps to 1e-5: batch norm, dropout, odd batches, and all that a step can do."""
    ours, alone = fl.load_run(trained / name), fl.load_run(trained / f"alone-{name}")
    assert len(alone.steps) >= 50
    assert [row["loss"] for row in ours.steps] == pytest.approx([row["loss"] for row in alone.steps], abs=1e-5)
    assert [row["lr"] for row in ours.steps] == [row["lr"] for row in alone.steps]
    weights, expected = fl.load_model(ours).state_dict(), fl.load_model(alone).state_dict()
    assert all(torch.allclose(weights[key].float(), expected[key].float(), atol=1e-4) for key in expected)


@pytest.mark.parametrize("name", JOBS)
def test_figures_count_each_image_once(trained: Path, name: str) -> None:
    """F10: accuracies are whole numbers of images over their number, with no padded duplicates: those of one process."""
    ours, alone = fl.load_run(trained / name), fl.load_run(trained / f"alone-{name}")
    for mine, one in zip(ours.epochs, alone.epochs, strict=True):
        for key, num in (("train_accuracy", ours.info["data"]["num_train"]), ("val_accuracy", ours.info["data"]["num_val"])):
            assert mine[key] * num == pytest.approx(round(mine[key] * num), abs=1e-6)
            assert abs(mine[key] - one[key]) * num <= 1 + 1e-6  # a last bit may turn an image that lies between two classes
    assert ours.summary["test_accuracy"] == pytest.approx(alone.summary["test_accuracy"], abs=0.003)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("num", [64, 65, 67, 3])
def test_ranks_see_each_image_once_an_epoch(size: int, num: int) -> None:
    """F10: the parts of each batch, put together, are the batch of one process: images, labels, augmentation; the same from the middle."""
    dataset = load_digits("train", Path()).subset(torch.arange(num))
    shared: dict[str, Any] = {
        "batch_size": 16,
        "seed": 3,
        "normalize": Normalize((0.5,), (0.5,)),
        "shuffle": True,
        "augment": Augment(crop=2),
    }
    whole = list(Loader(dataset, **shared).batches(1))
    parts = [list(Loader(dataset, **shared, shard=Shard(rank, size)).batches(1)) for rank in range(size)]
    assert all(len(part) == len(whole) for part in parts)
    for number, batch in enumerate(whole):
        for field in batch._fields:
            assert torch.equal(torch.cat([getattr(part[number], field) for part in parts]), getattr(batch, field))
    last = len(whole) - 1
    for rank, part in enumerate(parts):
        (again,) = Loader(dataset, **shared, shard=Shard(rank, size)).batches(1, start=last)
        assert torch.equal(again.images, part[last].images)
        assert [len(drawn.indices) for drawn in Loader(dataset, **shared, shard=Shard(rank, size)).draws(1)] == [
            len(b.indices) for b in part
        ]


# What a training in two processes survives

NUM_EPOCHS = 20
SMALL = ["model={name: mlp, hidden: [8], dropout: 0.2}", "split.num_train=96", "train.batch_size=32", "train.test_at_end=false", FIXED]
SMALL += ["checkpoint.every_steps=5", "train.log_every=3", "schedule=constant", "train.ema_decay=0.9"]
LONG = [*SMALL, f"train.epochs={NUM_EPOCHS}"]
ENDLESS = [*SMALL, "train.epochs=4000"]


def is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for_step(run: Path, least: int, pids: Iterable[int]) -> None:
    """Wait until a run has saved a step past `least`."""
    while max((int(path.name.split("-")[1]) for path in run.glob("checkpoints/step-*")), default=0) <= least:
        assert all(map(is_alive, pids)), "ended too early"
        time.sleep(0.01)


def ranks_of(agent: subprocess.Popen[str], run: Path) -> dict[int, int]:
    """Return the process of each rank of torchrun, once its run has saved a step."""
    wait_for_step(run, 6, [agent.pid])
    found: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rsplit(")", 1)[1].split()[1])
            entries = (place / "environ").read_bytes().split(b"\0") if parent == agent.pid else []
        except (OSError, IndexError):
            continue
        found |= {int(entry.partition(b"=")[2]): int(place.name) for entry in entries if entry.startswith(b"RANK=")}
    return found


def errors_in(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line.startswith("error: ")]


def test_a_rank_killed_under_torchrun_ends_all(tmp_path: Path) -> None:
    """Fault 28, fault 27: SIGKILL of one rank; the other says so in one line and ends, nobody is left, the run can be resumed."""
    run = tmp_path / "runs" / "run"
    agent = torchrun("train", "quickstart", *ENDLESS, "--name", "run", cwd=tmp_path)
    pids = ranks_of(agent, run)
    os.kill(pids[1], signal.SIGKILL)
    code, err = finish(agent)
    (line,) = errors_in(err)
    assert code != 0 and "rank 1 of 2 was killed" in line and "checkpoint step-" in line
    assert line.endswith(f"go on with: torchrun --nproc-per-node 2 -m firstlight train --resume {run}")
    assert len(pids) == 2 and not any(map(is_alive, pids.values()))
    assert fl.load_run(run).state == "interrupted"


def test_ranks_that_torchrun_starts_again_go_on(start: Start, tmp_path: Path) -> None:
    """Fault 28, F3: with --max-restarts a killed rank costs the steps since the last checkpoint, and the bits are those of no kill."""
    run, whole = tmp_path / "runs" / "run", tmp_path / "runs" / "whole"
    agent = torchrun("train", "quickstart", *SMALL, "train.epochs=60", "--name", "run", cwd=tmp_path, max_restarts=1)
    os.kill(ranks_of(agent, run)[1], signal.SIGKILL)
    codes, _, err = start("train", "quickstart", *SMALL, "train.epochs=60", "--name", "whole", cwd=tmp_path).finish()
    assert codes == [0, 0], err
    code, said = finish(agent)
    assert code == 0, [line for line in said if not line.startswith("epoch")]
    assert len(fl.load_run(run).info["resumes"]) == 1
    assert rows_of(run) == rows_of(whole)


def test_a_restart_takes_up_nothing_but_its_own_run(start: Start, tmp_path: Path) -> None:
    """F10: a name is asked for where torchrun may start again; a run of another config that has the name is left alone."""
    restarts = {"TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_RESTART_COUNT": "0"}
    codes, _, err = start("train", "quickstart", *LONG, cwd=tmp_path, environment=restarts).finish()
    assert codes == [2, 2] and err[1] == ""
    assert err[0].startswith("error: torchrun --max-restarts starts the ranks again") and err[0].endswith("; add --name NAME\n")
    fl.train("quickstart", *SMALL, "train.epochs=1", name="run", runs_dir=tmp_path / "runs", console=Console(quiet=True))
    again = {**restarts, "TORCHELASTIC_RESTART_COUNT": "1"}
    codes, _, err = start("train", "quickstart", *LONG, "--name", "run", cwd=tmp_path, environment=again).finish()
    assert codes == [5, 5] and err[0].startswith("error: a run stands at ")
    codes, _, err = start("train", "quickstart", *SMALL, "train.epochs=1", "--name", "run", cwd=tmp_path, environment=again).finish()
    assert codes == [0, 0], err
    assert "resumes" not in fl.load_run(tmp_path / "runs" / "run").info, "it was finished, so nothing is left to do"


def test_torchrun_stops_all_ranks_at_one_step(tmp_path: Path) -> None:
    """Fault 6: SIGTERM to torchrun reaches all ranks; they stop behind the same step, rank 0 saves and is the only one to speak."""
    run = tmp_path / "runs" / "run"
    agent = torchrun("train", "quickstart", *ENDLESS, "--name", "run", cwd=tmp_path)
    pids = ranks_of(agent, run)
    agent.send_signal(signal.SIGTERM)
    _, err = finish(agent)
    (line,) = errors_in(err)
    assert "interrupted, saved; checkpoint step-" in line and "go on with: torchrun --nproc-per-node 2 -m firstlight train --resume" in line
    assert not any(map(is_alive, pids.values()))
    assert fl.load_run(run).state == "interrupted"


def test_without_rank_0_the_others_end(start: Start, tmp_path: Path) -> None:
    """Fault 28: the rank that has the run folder and the meeting point is killed, and no torchrun looks after the others."""
    run = tmp_path / "runs" / "run"
    ranks = start("train", "quickstart", *ENDLESS, "--name", "run", cwd=tmp_path)
    wait_for_step(run, 6, ranks.pids.values())
    os.kill(ranks.pids[0], signal.SIGKILL)
    codes, _, err = ranks.finish()
    assert codes == [-signal.SIGKILL, 1]
    (line,) = errors_in(err[1].splitlines())
    assert line.startswith("error: rank 0 of 2 was killed") and line.endswith(f"-m firstlight train --resume {run}")
    assert fl.load_run(run).state == "interrupted"


def test_a_stopped_rank_ends_the_others_after_the_wait(start: Start, tmp_path: Path) -> None:
    """Fault 28: SIGSTOP of one rank; after device.wait_seconds the other says so and ends."""
    run = tmp_path / "runs" / "run"
    ranks = start("train", "quickstart", *ENDLESS, "device.wait_seconds=2", "--name", "run", cwd=tmp_path)
    wait_for_step(run, 6, ranks.pids.values())
    os.kill(ranks.pids[1], signal.SIGSTOP)
    while is_alive(ranks.pids[0]):
        time.sleep(0.01)
    assert fl.load_run(run).state == "interrupted"
    os.kill(ranks.pids[1], signal.SIGKILL)  # torchrun would, 30 s later
    codes, _, err = ranks.finish()
    (line,) = errors_in(err[0].splitlines())
    assert "error: rank 1 of 2 does not answer within device.wait_seconds=2" in line
    assert codes == [1, -signal.SIGKILL] and err[1] == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_of_one_rank_stops_all(start: Start, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Fault 6: a signal to a single rank; all agree on the step, rank 0 saves, both leave with the code of the signal."""
    run = tmp_path / "runs" / "run"
    ranks = start("train", "quickstart", *ENDLESS, "--name", "run", cwd=tmp_path)
    wait_for_step(run, 6, ranks.pids.values())
    os.kill(ranks.pids[1], number)
    codes, _, err = ranks.finish()
    assert codes == [code, code] and err[1] == ""
    (line,) = errors_in(err[0].splitlines())
    assert "interrupted, saved; checkpoint step-" in line


def test_killed_and_resumed_it_ends_with_the_same_bits(start: Start, tmp_path: Path) -> None:
    """F3, F10: kill -9 of both ranks, resume in two: every row and every byte of the weights as if nothing had been."""
    whole, cut = tmp_path / "runs" / "whole", tmp_path / "runs" / "cut"
    codes, out, err = start("train", "quickstart", *LONG, "--name", "whole", "--json", cwd=tmp_path).finish()
    assert codes == [0, 0], err
    assert json.loads(out[0])["run"] == str(whole) and out[1] == err[1] == "", "rank 0 alone speaks"
    assert fl.load_run(whole).info["ranks"] == 2
    ranks = start("train", "quickstart", *LONG, "--name", "cut", cwd=tmp_path)
    wait_for_step(cut, 9, ranks.pids.values())
    for pid in ranks.pids.values():
        os.kill(pid, signal.SIGKILL)
    ranks.finish()
    assert fl.load_run(cut).state == "interrupted" and len(fl.load_run(cut).epochs) < NUM_EPOCHS
    with pytest.raises(
        ConfigError, match=r"trained by 2 processes, and this is 1; start 2 \(torchrun --nproc-per-node\), or add --override"
    ):
        fl.resume(cut)
    shutil.copytree(cut, tmp_path / "alone")
    codes, _, err = start("train", "--resume", "cut", cwd=tmp_path).finish()
    assert codes == [0, 0], err
    rows = rows_of(whole)
    assert rows_of(cut) == rows
    name = json.loads((cut / "checkpoints" / "last.json").read_text())["folder"]
    for file in ("model.safetensors", "optim.safetensors", "ema.safetensors"):
        place = Path("checkpoints") / name / file
        assert (cut / place).read_bytes() == (whole / place).read_bytes()
    alone = fl.resume(tmp_path / "alone", override=True, console=Console(quiet=True))
    assert alone.info["ranks"] == 1 and "2 -> 1" in alone.info["resumes"][-1]["inexact"]
    assert [row["loss"] for row in alone.steps] == pytest.approx([row["loss"] for row in rows if row["kind"] == "step"], abs=1e-4)


def test_all_ranks_go_back_from_a_number_that_is_not_finite(start: Start, tmp_path: Path) -> None:
    """Fault 24 on two ranks: both go back to the state of rank 0's checkpoint, as one process does."""
    words = [*SMALL, "optim={name: sgd, lr: 2.0e+10}", "train.on_divergence=rollback", "train.epochs=2"]
    codes, _, err = start("train", "quickstart", *words, "--name", "run", cwd=tmp_path).finish()
    with suppress(FirstlightError):
        fl.train("quickstart", *words, runs_dir=tmp_path, name="alone", console=Console(quiet=True))
    assert codes[0] == codes[1], err
    ours, one = (fl.load_run(path).info["rollbacks"] for path in (tmp_path / "runs" / "run", tmp_path / "alone"))
    assert len(ours) == len(one) > 0 and [back["step"] for back in ours] == [back["step"] for back in one]


def test_a_rank_with_another_config_is_named(start: Start, tmp_path: Path) -> None:
    """F10: it ends all, before anything is written; one line names it and the setting."""
    codes, out, err = start("train", "quickstart", *LONG, "--name", "run", cwd=tmp_path, odd="optim.lr=0.5").finish()
    assert err == ["error: rank 1 differs from rank 0 in its config: optim.lr 0.003 -> 0.5; give all ranks the same\n", ""]
    assert out == ["", ""] and codes == [2, 2]
    assert not (tmp_path / "runs").exists()


def test_a_rank_with_other_data_is_named(start: Start, tmp_path: Path) -> None:
    """F10: one pixel of one image differs on one of the machines."""
    for machine in ("a", "b"):
        for number in range(12):
            image = np.full((8, 8), number * 20, np.uint8)
            image[0, 0] += machine == "b" and number == 5
            path = tmp_path / machine / "photos" / ("dark" if number < 6 else "light") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    words = ["train", "quickstart", "data={name: folder, path: photos}", "train.batch_size=4", FIXED, "--name", "run"]
    _, _, err = start(*words, cwd=tmp_path, folders=("a", "b")).finish()
    assert err[0].startswith("error: rank 1 differs from rank 0 in its data: content_hash")
    assert err[0].endswith("; give all ranks the same\n") and err[0].count("\n") == 1 and err[1] == ""
    assert not (tmp_path / "runs").exists()


def test_a_rank_without_its_data_says_so(start: Start, tmp_path: Path) -> None:
    """F10: an error of one rank ends all; that rank says it, with its number."""
    for place in ("a/photos/dark", "a/photos/light", "b"):
        (tmp_path / place).mkdir(parents=True)
    for number in range(12):
        Image.new("L", (8, 8), number * 20).save(tmp_path / "a" / "photos" / ("dark" if number < 6 else "light") / f"{number}.png")
    words = ["train", "quickstart", "data={name: folder, path: photos}", "train.batch_size=4", FIXED, "--name", "run"]
    codes, _, err = start(*words, cwd=tmp_path, folders=("a", "b")).finish()
    assert err[0] == "" and err[1].startswith("error: rank 1: ") and "photos" in err[1] and err[1].count("\n") == 1
    assert codes == [3, 3]


def test_a_mistake_of_all_ranks_is_said_once(start: Start, tmp_path: Path) -> None:
    """F10: more ranks than images in a batch; rank 0 says so, the other leaves without a word."""
    codes, _, err = start("train", "quickstart", "train.batch_size=1", FIXED, cwd=tmp_path).finish()
    assert err[0].startswith("error: train.batch_size=1 is the batch of all 2 ranks together") and err[0].count("\n") == 1
    assert err[1] == "" and codes == [2, 2]


def test_a_mistake_before_the_ranks_meet_is_said_once(start: Start, tmp_path: Path) -> None:
    """F10: words that are no command or option of any rank are rank 0's to say; those of one rank are its own."""
    for words in (["train", "--override"], ["trian"], ["evaluate", "nothing"]):
        codes, _, err = start(*words, cwd=tmp_path).finish()
        assert codes == [2, 2] and err[1] == ""
        assert err[0].startswith("error: ") and err[0].count("\n") == 1
    codes, _, err = start("train", "quickstart", *LONG, cwd=tmp_path, odd="--exact").finish()
    assert codes == [2, 2] and err[0] == ""
    assert err[1] == "error: rank 1: --exact says how to resume; it needs --resume RUN\n"


def test_a_rank_with_other_test_images_is_named(start: Start, tmp_path: Path) -> None:
    """F10: the ranks share the batches of the test set too, so it must be the same one; the run keeps what it learned."""
    for machine in ("a", "b"):
        for number in range(24):
            part, name = (
                ("train", "dark") if number < 6 else ("train", "light") if number < 12 else ("test", "dark" if number < 18 else "light")
            )
            image = np.full((8, 8), number * 10, np.uint8)
            image[0, 0] += machine == "b" and number == 20
            path = tmp_path / machine / "photos" / part / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    words = ["train", "quickstart", "data={name: folder, path: photos}", "train.batch_size=4", "train.epochs=1", FIXED, "--name", "run"]
    _, _, err = start(*words, cwd=tmp_path, folders=("a", "b")).finish()
    (line,) = errors_in(err[0].splitlines())
    assert line.startswith("error: rank 1 differs from rank 0 in its test data: content_hash") and err[1] == ""
    run = fl.load_run(tmp_path / "runs" / "run")
    assert run.info["test_openings"] == [] and run.summary["best_epoch"] == 1


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"WORLD_SIZE": "2"}, "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT say nothing; start with torchrun"),
        ({"WORLD_SIZE": "two", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "WORLD_SIZE=two"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK=2 is not in 0..1"),
    ],
)
def test_half_an_environment_is_refused(environment: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        ranks_in(environment)


def test_without_an_environment_a_process_is_alone() -> None:
    assert ranks_in({}) is None and ranks_in({"WORLD_SIZE": "1", "RANK": "0"}) is None
