"""What a command says while it works."""

from pathlib import Path

import pytest

from firstlight.files import Appender
from firstlight.tracking.console import Console


def test_lines_go_to_stderr_and_to_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.line("before the log")
    console.log = Appender(tmp_path / "log.txt")
    console.line("epoch 1\nepoch 2")
    console.warn("a class is empty")
    console.log.close()
    assert capsys.readouterr() == ("", "before the log\nepoch 1\nepoch 2\nwarning: a class is empty\n")
    logged = [line.split(" ", 1) for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert [text for _, text in logged] == ["epoch 1", "epoch 2", "warning: a class is empty"]
    assert all(len(stamp) == 8 and stamp[2] == stamp[5] == ":" for stamp, _ in logged)


def test_a_quiet_console_still_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    console.log = Appender(tmp_path / "log.txt")
    console.line("epoch 1")
    console.log.close()
    assert capsys.readouterr() == ("", "")
    assert "epoch 1" in (tmp_path / "log.txt").read_text()


def test_no_bar_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress("training", 10) as bar:
        bar.update(5, "loss 0.1")
    assert capsys.readouterr() == ("", "")


def test_text_with_brackets_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    Console().line("shape [1, 28, 28] [red]x[/red]", style="bold")
    assert capsys.readouterr().err == "shape [1, 28, 28] [red]x[/red]\n"
