"""The protocol of the benchmarks: turns in processes of their own, ratios of pairs, guards, refusal when busy."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pairs import ArmError, Child, Measured, Pairs, child_environment, equal_within, limit_share, measure, parser, record, row
from benchmarks.record import FOLDER, records_text, refuse_when_busy

ARM = """
import os, sys
from benchmarks.turns import Turns
name, log = sys.argv[1:]
turns = Turns()
print("what a framework prints")
os.system("echo what its own children print")
def work():
    with open(log, "a") as handle:
        handle.write(name)
    return 4
turns.repeat(work, lambda: {"parameters": 7 if name != "C" else 8})
"""


@pytest.fixture
def command(tmp_path: Path):
    (tmp_path / "arm.py").write_text(ARM, encoding="utf-8")
    return lambda name: [sys.executable, str(tmp_path / "arm.py"), name, str(tmp_path / "log")]


def answers(ours: list[float], theirs: list[float]) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Pairs of answers: two units a repetition of ours, four of theirs."""
    return [({"seconds": 2 * a, "count": 2}, {"seconds": 4 * b, "count": 4}) for a, b in zip(ours, theirs, strict=True)]


def test_a_ratio_is_taken_in_each_pair() -> None:
    """A slow moment slows both arms of a pair: their ratio stays, where a ratio of medians would not."""
    pairs = Pairs.of(answers([1.0, 10.0, 2.0], [3.0, 30.0, 4.0]))
    assert pairs.ours == (1.0, 10.0, 2.0)
    assert pairs.times_faster == [3.0, 3.0, 2.0]
    assert pairs.share == pytest.approx([1 / 3, 1 / 3, 1 / 2])


def test_a_row_is_the_median_with_its_range() -> None:
    found = row("a ratio", [3.0, 1.0, 2.5], "x", least=2.0, guard="equal")
    assert found == {"what": "a ratio", "value": 2.5, "unit": "x", "n": 3, "note": "range 1 to 3", "least": 2.0, "guard": "equal"}


def test_the_share_of_the_limit_counts_in_units_of_the_limit() -> None:
    """Ours counts steps of 128 images, the limit counts images: 1 s a step against 2 ms an image is 25.6 %."""
    measured = Measured(answers([1.0], [0.002]), {}, {}, "")
    assert limit_share(measured, units=128) == "25.6 %"


def test_arms_take_turns(command, tmp_path: Path) -> None:
    """A B A B, behind one warm-up each; what is printed by a framework never reaches the parent."""
    found = measure(command, ["B"], num_pairs=3, threads=1, check=lambda ours, theirs: equal_within(ours, theirs, tolerance=0))
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert log == "firstlight" + "B" + "firstlightB" * 3
    assert len(found["B"].answers) == 3
    assert found["B"].guard == "7 parameters"
    assert all(ours["count"] == theirs["count"] == 4 for ours, theirs in found["B"].answers)


def test_an_arm_that_does_other_work_is_left_out(command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measure(command, ["C", "B"], num_pairs=1, threads=1, check=lambda ours, theirs: equal_within(ours, theirs, tolerance=0))
    assert list(found) == ["B"]
    assert "left out: C: it does other work: parameters 8, ours 7" in capsys.readouterr().err


def test_an_arm_that_dies_says_so() -> None:
    with pytest.raises(ArmError, match="the process of keras ended with code 3 before it answered"):
        Child("keras", [sys.executable, "-c", "raise SystemExit(3)"])


def test_an_arm_ends_when_its_parent_has_gone(command) -> None:
    """Nothing is left running behind a benchmark that was killed."""
    done = subprocess.run(
        command("B"), input="go\n", env=child_environment(1), capture_output=True, text=True, timeout=60, check=False
    )  # then its stdin ends
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(("theirs", "fits"), [(1.01, True), (0.99, True), (1.03, False), (float("nan"), False)])
def test_a_guard_holds_the_loss_within_a_tolerance(theirs: float, fits: bool) -> None:
    ours, other = {"parameters": 10, "loss": 1.0}, {"parameters": 10, "loss": theirs}
    if fits:
        assert equal_within(ours, other, tolerance=0.02) == f"10 parameters, loss 1 and {theirs:.4g}"
        return
    with pytest.raises(ArmError, match="other work: loss"):
        equal_within(ours, other, tolerance=0.02)


def test_a_child_is_pinned_and_quiet() -> None:
    environment = child_environment(2)
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "2"
    assert environment["WANDB_MODE"] == "offline"
    assert environment["YOLO_OFFLINE"] == "true"


def test_a_busy_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    with pytest.raises(SystemExit, match=r"the load is 1000\.0 on \d+ cores, too busy to measure; wait, or add --force"):
        refuse_when_busy(False)
    refuse_when_busy(True)


def test_a_part_of_a_line_is_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    """A record that some peers are missing from, or that has few pairs, would replace a whole one."""
    for words in (["--peers", "keras"], ["--pairs", "4"]):
        arguments = parser("", ("torch", "keras")).parse_args(words)
        record("never", "", "", [row("a ratio", [2.0], "x")], {}, arguments, {})
        assert "a ratio: 2 x; range 2 to 2\nnot recorded" in capsys.readouterr().out
    assert not (FOLDER / "results" / "never.json").exists()


def test_an_unknown_peer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser("", ("torch", "keras")).parse_args(["--peers", "keras,tensorflow"])
    assert "tensorflow: unknown; known are torch, keras" in capsys.readouterr().err
    assert isinstance(parser("", ()).parse_args([]), argparse.Namespace)


def test_records_are_what_the_results_say() -> None:
    """RECORDS.md is generated: nobody changes a figure in it by hand."""
    assert (FOLDER / "RECORDS.md").read_text(encoding="utf-8") == records_text()
