"""The server and the page of a run: how it starts, ends, follows a training, and what it says of odd runs."""

import itertools
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

import firstlight as fl
from firstlight.dashboard.curves import MAX_STEPS, read_curves
from firstlight.dashboard.index import id_of
from firstlight.tracking.writer import RunWriter
from tests.dashboard.folders import write_run
from tests.dashboard.served import Served

MOST_SECONDS = 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real run."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    fl.train("quickstart", "model=linear", "train.epochs=3", name="real", note="a <b>note</b>", runs_dir=folder)
    return folder


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(trained, tmp_path_factory.mktemp("cache")) as server:
        yield server


def page_of(name: str) -> str:
    return f"/run/{id_of(name)}"


def test_the_page_of_a_run_tells_all_of_it(served: Served, trained: Path) -> None:
    """F5: figures, settings, environment, log, note; the numbers are those of run.json."""
    text = served.get(page_of("real")).text
    run = fl.load_run(trained / "real")
    for wanted in (
        f"{run.summary['val_accuracy']:.4f}",
        f"{run.summary['test_accuracy']:.4f}",
        "test set opened 1 time",
        "a &lt;b&gt;note",
    ):
        assert wanted in text
    for section, settings in run.config.items():
        assert section in text
        assert not isinstance(settings, dict) or all(f"<dt>{key}</dt>" in text for key in settings)
    assert run.info["environment"]["packages"]["torch"] in text and "best epoch" in text


def test_curves_are_the_rows_that_were_written(served: Served, trained: Path) -> None:
    curves = served.get(f"/api{page_of('real')}/curves").json
    run = fl.load_run(trained / "real")
    assert curves["epochs"]["val_loss"] == [row["val_loss"] for row in run.epochs]
    assert curves["steps"]["loss"] == [row["loss"] for row in run.steps]
    assert curves["all_steps"] and curves["num_steps"] == run.steps[-1]["step"] and curves["num_train"] == run.info["data"]["num_train"]


def write_rows(path: Path, num_steps: int, every: int) -> None:
    lines = []
    for step in range(1, num_steps + 1):
        lines.append(json.dumps({"kind": "step", "step": step, "epoch": 1 + step // every, "lr": 0.1, "loss": 1 / step, "grad_norm": 1.0}))
        if step % every == 0:
            lines.append(json.dumps({"kind": "epoch", "epoch": step // every, "step": step, "val_loss": 2 / step}))
    path.write_text("\n".join(lines) + "\n")


def test_a_long_training_is_thinned_but_for_its_epochs(tmp_path: Path) -> None:
    """50,000 steps: evenly spaced ones are drawn, and every epoch."""
    write_rows(path := tmp_path / "metrics.jsonl", 50_000, 100)
    curves = read_curves(path)
    steps = curves["steps"]["step"]
    assert 0.9 * MAX_STEPS < len(steps) <= MAX_STEPS and not curves["all_steps"]
    assert steps == sorted(set(steps)) and steps[0] == 1 and steps[-1] > 49_900
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 2 * 50_000 / MAX_STEPS
    assert curves["steps"]["loss"] == [1 / step for step in steps]
    assert curves["epochs"]["epoch"] == list(range(1, 501))


def test_curves_of_damaged_rows(tmp_path: Path) -> None:
    """Fault 50: NaN, torn lines, other kinds, text for numbers: None or left out, never an error."""
    path = tmp_path / "metrics.jsonl"
    good = {"kind": "epoch", "epoch": 1, "step": 1, "val_loss": 0.5}
    odd = [
        '{"kind": "step", "step": 1, "loss": NaN}',
        "[]",
        "null",
        '{"kind": "step"}',
        '{"kind": "step", "step": "2"}',
        "\x00\xff",
        "[" * 99_999,
    ]
    odd += [
        '{"kind": "step", "step": 3, "loss": 1e999}',
        '{"kind": "step", "step": 4, "loss": "<b>"}',
        json.dumps(good),
        '{"kind": "step", "st',
    ]
    path.write_bytes("\n".join(odd).encode("latin-1"))
    curves = read_curves(path)
    assert curves["steps"] == {"step": [1, 3, 4], "loss": [None, None, None]}
    assert curves["epochs"] == {"epoch": [1], "step": [1], "val_loss": [0.5]}
    assert read_curves(tmp_path / "none")["epochs"] == {}


class Stream:
    """The stream of events of a run."""

    def __init__(self, served: Served, name: str) -> None:
        self.connection = HTTPConnection(served.host, served.port, timeout=MOST_SECONDS)
        self.connection.request("GET", f"/api{page_of(name)}/events", headers={"Cookie": served.cookie})
        self.answer = self.connection.getresponse()
        assert self.answer.headers["content-type"].startswith("text/event-stream")
        assert self.next() == ("hello", {})

    def close(self) -> None:
        self.answer.close()
        self.connection.close()

    def next(self) -> tuple[str, Any]:
        """Return the next event."""
        kind, data = "", ""
        while (line := self.answer.fp.readline().decode().strip("\r\n")) or not kind:
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                data = line[6:]
        return kind, json.loads(data)

    def until(self, wanted: str) -> list[tuple[str, Any]]:
        """Return the events up to the first of a kind."""
        found = [self.next()]
        while found[-1][0] != wanted:
            found.append(self.next())
        return found


def test_a_stream_follows_a_run_to_its_removal(served: Served, trained: Path) -> None:
    """F5: rows, log and facts as they come; replaced rows are asked for again; a run deleted while it is shown is said to be gone."""
    import shutil

    with RunWriter(trained / "live") as writer:
        writer.start("name: x\ntrain: {epochs: 9}\n")
        served.wait_for(lambda: served.get(page_of("live")).status == 200)
        assert 'class="state running"' in served.get(page_of("live")).text
        stream, other = Stream(served, "live"), Stream(served, "live")
        writer.append([{"kind": "step", "step": step, "epoch": 1, "lr": 0.1, "loss": 0.5, "grad_norm": 1.0} for step in range(1, 1001)])
        writer.append([{"kind": "epoch", "epoch": 1, "step": 1000, "val_accuracy": 0.5}])
        kind, rows = stream.until("rows")[-1]
        assert other.until("rows")[-1] == (kind, rows)
        assert len(rows) <= 202 and rows[-1]["kind"] == "epoch" and rows[-2]["step"] == 1000
        writer.log.write_lines(["12:00:00 a line <b>"])
        assert stream.until("log")[-1][1] == ["12:00:00 a line <b>"]
        writer.cut_rows_after(10, 0)
        stream.until("again")
    stream.until("facts")
    served.wait_for(lambda: 'class="state finished"' in served.get(page_of("live")).text)
    shutil.rmtree(trained / "live")
    stream.until("gone")
    stream.close()
    other.close()
    assert served.get(page_of("live")).status in (404, 410)
    served.wait_for(lambda: served.get(page_of("live")).status == 404)


def test_a_damaged_run_has_a_page(served: Served, trained: Path) -> None:
    """Fault 50: its page says what is wrong, and shows what can be read."""
    bad = write_run(trained / "bad")
    (bad / "config.yaml").write_text("a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9000)))
    served.wait_for(lambda: served.get(page_of("bad")).status == 200)
    found = served.get(page_of("bad"))
    assert "Damaged:" in found.text and "config.yaml" in found.text
    assert served.get(f"/api{page_of('bad')}/curves").json["epochs"]["epoch"] == [1, 2]


def test_reports_are_files_to_save(served: Served, trained: Path) -> None:
    """They do not run inside the dashboard; without any the page says what to type."""
    assert "firstlight report NAME" in served.get("/reports").text
    fl.report(trained / "real")
    served.wait_for(lambda: f"/report/{id_of('real')}" in served.get("/reports").text)
    found = served.get(f"/report/{id_of('real')}")
    assert found.body == (trained / "real" / "report.html").read_bytes()
    assert found.headers["content-disposition"].startswith('attachment; filename="report-real.html"')


def test_tags_are_given_and_found(served: Served, trained: Path) -> None:
    """F5: `firstlight tag` gives tags, the list shows and finds them, --remove takes them away."""

    def tag(*words: str) -> Any:
        command = [sys.executable, "-m", "firstlight", "tag", "real", *words, "--runs-dir", str(trained), "--json"]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["tags"]

    assert tag("final", "best one") == ["final", "best one"]
    served.wait_for(lambda: '<span class="tag">best one</span>' in served.get("/?q=tag%3Dfinal").text)
    assert tag("final", "--remove") == ["best one"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_though_a_page_is_open(trained: Path, tmp_path: Path, number: int) -> None:
    """Fault 52: open streams do not hold it up; a signal ends it in order, without a traceback."""
    with Served(trained, tmp_path) as served:
        stream = Stream(served, "real")
        served.process.send_signal(number)
        assert served.process.wait(20) == 0
        stream.close()
    assert re.sub(r"token=\S+", "", served.errors.read_text()).splitlines() == [
        f"runs in {trained}",
        "Ctrl-C ends it; trainings do not depend on it",
        f"opened; for another browser: http://127.0.0.1:{served.port}/?",
    ]


def refused(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "firstlight", "dashboard", *words], capture_output=True, text=True, timeout=MOST_SECONDS)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and "; " in lines[0]
    return lines[0]


def test_an_address_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "is in use" in refused("--port", str(taken.getsockname()[1]))
    assert "is no port" in refused("--port", "99999")
    assert "cannot listen at" in refused("--host", "192.0.2.7")


def test_no_runs_at_all(tmp_path: Path) -> None:
    """The page says what to type; the first run appears by itself, though the folder was not there."""
    with Served(tmp_path / "none", tmp_path) as served:
        assert "firstlight train" in served.get("/").text
        write_run(tmp_path / "none" / "first")
        served.wait_for(lambda: ">first</a>" in served.get("/").text)


def test_a_server_starts_without_numpy_and_torch() -> None:
    """They would take longer to import than all the rest."""
    code = (
        "import firstlight.dashboard.server, sys; print([name for name in ('numpy', 'torch', 'PIL', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
