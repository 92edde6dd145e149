"""What is handed in, judged: twenty notebooks right in twenty, bad input on one line, and never in the checker's own process (C10)."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firstlight.__main__ import main
from firstlight.errors import ConfigError, DataError
from firstlight.notebooks.hand_in import check
from firstlight.notebooks.read import read_hand_in
from tests.notebooks.hand_ins import GOOD, LESSON, ONLY_A_RUN_TELLS, SPOILT, as_it_was, code_cell, find, handed_in, numbered, printed, write

Lines = Callable[..., list[str]]


def verdict(path: Path, **options: Any) -> dict[str, Any]:
    row: dict[str, Any] = check([path], lesson=str(LESSON), **options)["notebooks"][0]
    return row


def lines(path: Path, **options: Any) -> list[str]:
    row = verdict(path, **options)
    assert row["good"] == (not row["findings"])
    return [finding["line"] for finding in row["findings"]]


@pytest.mark.parametrize("name", GOOD)
def test_good_hand_ins_are_good(name: str, tmp_path: Path) -> None:
    """C10: extra cells, other words, other solutions, other editors and older formats are no fault."""
    assert lines(write(tmp_path, handed_in(GOOD[name]))) == []


@pytest.mark.parametrize("name", [name for name in SPOILT if name not in ONLY_A_RUN_TELLS])
def test_spoilt_hand_ins_are_told_by_the_cell(name: str, tmp_path: Path) -> None:
    """C10: one line, which names the cell and why."""
    change, told = SPOILT[name]
    found = lines(write(tmp_path, handed_in(change)))
    assert found[0].startswith(told) and len(found) == 1, found


@pytest.mark.parametrize("name", ONLY_A_RUN_TELLS)
def test_what_only_a_run_tells(name: str, tmp_path: Path) -> None:
    """C10: the file of a stale or a random output looks whole; two new runs tell."""
    path = write(tmp_path, handed_in(SPOILT[name][0]))
    assert lines(path) == []
    found = lines(path, rerun=True, seconds=60)
    assert found[0].startswith(SPOILT[name][1]) and len(found) == 1, found


@pytest.mark.parametrize("name", ["more_cells", "windows_line_ends", "from_colab"])
def test_a_run_finds_nothing_in_what_is_good(name: str, tmp_path: Path) -> None:
    """C10: times, what `varies=true` allows, and line ends do not count; all checks pass."""
    row = verdict(write(tmp_path, handed_in(GOOD[name])), rerun=True, seconds=60)
    assert row["findings"] == [] and (row["points"], row["most_points"]) == (3, 3)


@pytest.mark.soak
def test_twenty_of_twenty_with_a_run(tmp_path: Path) -> None:
    """C10: the verdict on all twenty, each run twice."""
    good = [write(tmp_path, handed_in(change), name) for name, change in GOOD.items()]
    spoilt = [write(tmp_path, handed_in(change), name) for name, (change, _) in SPOILT.items()]
    rows = check([*good, *spoilt], lesson=str(LESSON), rerun=True, seconds=60)["notebooks"]
    assert [row["good"] for row in rows] == [True] * 10 + [False] * 10, rows
    for row, (_, told) in zip(rows[10:], SPOILT.values(), strict=True):
        assert row["findings"][0]["line"].startswith(told)


def test_the_checks_of_the_lesson_run_and_not_those_handed_in(tmp_path: Path) -> None:
    """C10: a check that was made easy is named, and the lesson's own runs in its place: a wrong solution gets no points."""
    made = handed_in(SPOILT["tampered_check"][0])
    find(made, "def mean")["source"] = "def mean(values):\n    return values[0]"
    row = verdict(write(tmp_path, made), rerun=True, seconds=60)
    assert (row["points"], row["most_points"]) == (0, 3)
    assert row["findings"][0]["line"].startswith("cell 8 (check mean): was changed")


def test_a_check_that_was_made_text_runs_all_the_same(tmp_path: Path) -> None:
    """C10: a check turned into Markdown, its names kept: no points for a wrong solution."""
    made = handed_in(as_it_was)
    check_cell = find(made, "assert mean")
    made["cells"][made["cells"].index(check_cell)] = {
        "cell_type": "markdown",
        "id": check_cell["id"],
        "metadata": check_cell["metadata"],
        "source": check_cell["source"],
    }
    find(made, "def mean")["source"] = "def mean(values):\n    return 1.625"
    row = verdict(write(tmp_path, numbered(made)), rerun=True, seconds=60)
    assert (row["points"], row["most_points"]) == (0, 3)
    assert row["findings"][0]["line"] == "cell 8 (check mean): was changed: it is a markdown cell, and a code cell in the lesson"


RUNS = {
    "it writes outside of its folder": "open('{folder}/evil.txt', 'w').write('x')",
    "still ran after 6 s: an endless loop, or it needs more time (--seconds)": "while True:\n    pass",
    "needs a package that is not installed here (No module named 'no_such_package')": "import no_such_package",
    "it asks a program outside of its folder ({folder}/listener)": "from socket import *\nsocket(AF_UNIX).connect('{folder}/listener')",
    "it writes outside of its folder (/dev/tty)": "open('/dev/tty', 'w')",
    "it asks the network (example.com)": "import urllib.request\nurllib.request.urlopen('http://example.com')",
}


@pytest.mark.parametrize("told", RUNS)
def test_what_a_limited_child_does_not_allow(told: str, tmp_path: Path) -> None:
    """C10: bad input: one line with the cell and why, and nothing outside of the folder has changed."""
    made = handed_in(as_it_was)
    made["cells"].append(numbered({"cells": [code_cell(RUNS[told].format(folder=tmp_path.as_posix()))]})["cells"][0])
    found = lines(write(tmp_path, numbered(made)), rerun=True, seconds=6 if "--seconds" in told else 60)
    told = told.format(folder=tmp_path.as_posix())
    assert len(found) == 1 and found[0].startswith("cell 13: ") and told in found[0], found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hand_in.ipynb"]


LOOK = """
import ctypes, os, socket, subprocess
libc = ctypes.CDLL(None)
print(libc.open(b"{folder}/past_the_hook.txt", 0o101, 0o600), subprocess.run("echo x > {folder}/from_a_shell.txt", shell=True).returncode)
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
outside = socket.socket()
outside.settimeout(2)
print(libc.connect(outside.fileno(), bytes([2, 0, 0, 80, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]), 16))
try:
    os.kill(os.getppid(), 9)
except PermissionError:
    print("no signal leaves")
if sum(" /dev/pts " in line for line in open("/proc/self/mountinfo")) > {mounts}:
    assert libc.open(b"{terminal}", 0o401) == -1, "it writes to a terminal of others"
print([libc.open(b"/dev/" + name, 1) >= 0 for name in (b"null", b"full", b"console", b"kmsg")])
print(os.system("echo x > /dev/null"), open(os.devnull, "w").write("x"))
print("SECRET_TOKEN" in os.environ, os.environ["HOME"] == os.getcwd())
open("here.txt", "w").write("x")
"""


def test_the_system_holds_what_the_hook_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C10, F12: past Python's hook Landlock and a network of its own hold; no secret of the environment is there; loopback is."""
    monkeypatch.setenv("SECRET_TOKEN", "x")
    if not has_landlock():
        pytest.skip("needs a Linux with Landlock")
    from nbformat.v4 import new_code_cell, new_notebook

    from firstlight.notebooks.rerun import run

    ends = os.openpty()
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").count(" /dev/pts ")
    look = LOOK.format(folder=tmp_path.as_posix(), terminal=os.ttyname(ends[1]), mounts=mounts)
    ran = run(new_notebook(cells=[new_code_cell(look)]), settings={}, seconds=60, confined=True)
    for end in ends:
        os.close(end)
    assert ran.error == "" and ran.refused == ()
    said = [output.text for output in ran.notebook.cells[0].outputs if output.output_type == "stream" and output.name == "stdout"]
    assert said == ["-1 2\n-1\nno signal leaves\n[True, True, False, False]\n0 1\nFalse True\n"]
    assert list(tmp_path.iterdir()) == []


def has_landlock() -> bool:
    import ctypes

    return os.name == "posix" and ctypes.CDLL(None).syscall(444, None, 0, 1) >= 6


BAD = {
    "no notebook, or a damaged one": "{",
    "no Jupyter notebook, it has no list of cells": '{"paragraphs": [], "noteParams": {}}',
    "nbformat 3, and only 4 is read": '{"nbformat": 3, "cells": []}',
    "cell 1 is no cell of a notebook": '{"nbformat": 4, "cells": [7]}',
    "no notebook, or a damaged one (maximum recursion": "[" * 200_000,
}


@pytest.mark.parametrize("told", BAD)
def test_what_is_no_notebook_is_said_on_one_line(told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """C10: files of other tools and damaged ones: one line, exit code 3."""
    path = tmp_path / "hand_in.ipynb"
    path.write_text(BAD[told], encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["lessons", "check", str(path)])
    said = capsys.readouterr().out
    assert left.value.code == 3 and said.startswith(f"error: {path}: {told}") and said.count("\n") == 1 and ";" in said


def test_a_file_of_200_mb_is_not_read(tmp_path: Path) -> None:
    """C10: refused by its size, before a byte is read."""
    path = tmp_path / "hand_in.ipynb"
    with path.open("wb") as handle:
        handle.truncate(200 * 2**20)
    with pytest.raises(DataError, match=r"200 MB, and a notebook has at most 50; clear the outputs"):
        read_hand_in(path)


def test_a_notebook_without_metadata_and_with_a_syntax_error(tmp_path: Path) -> None:
    """C10: each on its line; without a lesson, order and errors are judged alone."""
    made = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [code_cell("print((1)"), code_cell("1 + 1")]}
    row = check([write(tmp_path, numbered(made))])["notebooks"][0]
    assert row["lesson"] is None
    assert [finding["line"] for finding in row["findings"]] == [
        "the notebook: says neither kernel nor language: open it in Jupyter with a Python 3 kernel, run it and save it",
        "cell 1: is no Python: '(' was never closed (line 1)",
    ]


def test_what_is_not_filled_in_did_not_run_or_failed(tmp_path: Path) -> None:
    """C10, C13: a student's notebook as it was handed out, and one that stopped at an error."""
    from tests.notebooks.hand_ins import student

    found = lines(write(tmp_path, student()))
    assert "cell 4 (predict middle): has no guess" in found and "cell 7 (exercise mean): is not filled in" in found
    assert "cell 12 (answer why): has no answer" in found
    assert found[0] == "cell 2: did not run, nor did 4, 5, 7, 8, 9, 10, 11; restart the kernel, run all cells, save"
    made = handed_in(as_it_was)
    find(made, "assert mean")["outputs"] = [
        {"output_type": "error", "ename": "AssertionError", "evalue": "the mean\nis 3", "traceback": []}
    ]
    assert lines(write(tmp_path, made)) == ["cell 8 (check mean): ends with an error, AssertionError: the mean is 3"]


def test_numbers_of_another_processor_are_the_same_numbers(tmp_path: Path) -> None:
    """C10: what was trained elsewhere may differ a little; whole numbers that people count may not."""
    from firstlight.notebooks.second_run import _agree

    assert _agree("loss 0.8450, accuracy 97.4%", "loss 0.8413, accuracy 97.1%") and _agree("1,203 mistakes", "1,188 mistakes")
    assert not _agree("loss 0.84", "loss 1.84") and not _agree("epoch 7 was best", "epoch 8 was best")
    assert not _agree("lr 0.001", "lr 0.0001") and not _agree("0.0002 apart", "0.0009 apart") and not _agree("loss inf", "loss 1.5")
    assert _agree("1.2e-07 apart", "4.0e-08 apart") and _agree("lr 0.00098", "lr 0.00100") and _agree("nan", "nan")
    assert not _agree("it is right", "it is wrong") and not _agree("", "4 heights")


def test_exit_codes_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """C10: 0 where all are good, 1 where something was found; --json says the same."""
    good, spoilt = write(tmp_path, handed_in(as_it_was), "a"), write(tmp_path, handed_in(SPOILT["empty_answer"][0]), "b")
    for paths, code in (([good], 0), ([good, spoilt], 1)):
        with pytest.raises(SystemExit) as left:
            main(["lessons", "check", *map(str, paths), "--lesson", str(LESSON), "--json"])
        found = json.loads(capsys.readouterr().out)
        assert left.value.code == code == found["exit_code"] and [row["good"] for row in found["notebooks"]] == [True, False][: len(paths)]
    assert [row["good"] for row in check([tmp_path], lesson=str(LESSON.parent))["notebooks"]] == [True, False]
    with pytest.raises(ConfigError, match="no notebook was named"):
        check([])


def test_a_notebook_of_another_version_of_the_lesson(tmp_path: Path) -> None:
    """C10: said as such, and not as if the student had changed the lesson; the sources that were built with it settle it."""
    path = write(tmp_path, handed_in(as_it_was))
    newer = tmp_path / LESSON.name
    newer.write_text(LESSON.read_text(encoding="utf-8").replace("mean height:", "the mean height:"), encoding="utf-8")
    row = check([path], lesson=str(newer))["notebooks"][0]
    assert row["findings"][0]["line"].startswith(
        "the notebook: was made from another version of 01_means: give --lesson the folder `sources`"
    )


def test_one_hand_in_does_not_end_the_check_of_a_folder(tmp_path: Path) -> None:
    """C10: a sum of 500 terms, half a letter and a notebook that cannot run here leave the others' rows as they are."""
    deep, half = handed_in(as_it_was), handed_in(as_it_was)
    deep["cells"].append(code_cell(f"print('sum', {'+'.join(['1'] * 500)})"))
    write(tmp_path, numbered(deep), "deep")
    find(half, '"heights"')["source"] += "\n# \ud800"
    write(tmp_path, half, "half")
    write(tmp_path, handed_in(as_it_was), "whole")
    rows = check([tmp_path], lesson=str(LESSON))["notebooks"]
    assert [row["good"] for row in rows] == [False, False, True]
    assert rows[0]["findings"][0]["line"].startswith("cell 13: its output is missing: `print('sum', 1+1+1")
    assert "surrogates not allowed" in rows[1]["unreadable"] and rows[1]["unreadable"].isascii()


def test_findings_of_the_file_stay_where_it_cannot_run(tmp_path: Path) -> None:
    """C10: a notebook that ran on MNIST, where there is none: said so, and what its file tells is told too."""
    made = handed_in(SPOILT["empty_answer"][0])
    printed(find(made, '"heights"'), "data: MNIST, 60,000 images; size: small\n4 heights\n")
    found = check([write(tmp_path, made)], lesson=str(LESSON), rerun=True, data_dir=tmp_path)
    row = found["notebooks"][0]
    assert "ran on MNIST, which is not in" in row["unreadable"] and found["exit_code"] == 3
    assert [finding["line"] for finding in row["findings"]] == ["cell 12 (answer why): has no answer"]


def test_a_hand_in_writes_nothing_into_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """C10: what moves the cursor of a terminal, and line ends, come out as spaces, also in the name of a file."""
    made = handed_in(as_it_was)
    find(made, "assert mean")["outputs"] = [
        {"output_type": "error", "ename": "E", "evalue": "\x1b[2A\x1b[J GOOD\u202e\x85\u2028x", "traceback": []}
    ]
    path = write(tmp_path, made, "a\nforged: good" if os.name == "posix" else "a")
    with pytest.raises(SystemExit):
        main(["lessons", "check", str(path), "--lesson", str(LESSON)])
    said = capsys.readouterr().out
    assert said.isascii() and "\x1b" not in said and said.count("\n") == 2
    assert said.endswith("  cell 8 (check mean): ends with an error, E: [2A [J GOOD x\n")


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    """C10: a line end in a path that was refused makes no second finding; of very many, twenty are told."""
    made = handed_in(as_it_was)
    refused = "import contextlib\nfor number in range(9_000):\n    with contextlib.suppress(PermissionError):\n        "
    refused += "open(f'/nope/{number}\\nforged: line', 'w')"
    made["cells"].append(code_cell(refused))
    found = lines(write(tmp_path, numbered(made)), rerun=True, seconds=60)
    assert len(found) == 20
    assert all(
        re.fullmatch(r"the notebook: was refused: it writes outside of its folder \(/nope/\d+ forged: line\)", line) for line in found
    )


def test_what_lies_in_a_folder_and_is_no_hand_in(tmp_path: Path) -> None:
    """C10: checkpoints of Jupyter, what macOS archives hold; and a pipe is refused, where reading it would wait for ever."""
    for name in (".ipynb_checkpoints/hand_in-checkpoint", "__MACOSX/._hand_in", "ana/._hand_in", "ana/hand_in"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, handed_in(as_it_was), name)
    rows = check([tmp_path], lesson=str(LESSON))["notebooks"]
    assert [row["file"] for row in rows] == [str(tmp_path / "ana" / "hand_in.ipynb")]
    (tmp_path / "folder.ipynb").mkdir()
    with pytest.raises(DataError, match=r"folder.ipynb: no file; name a notebook file"):
        read_hand_in(tmp_path / "folder.ipynb")
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe.ipynb")
        with pytest.raises(DataError, match=r"pipe.ipynb: no file; name a notebook file"):
            read_hand_in(tmp_path / "pipe.ipynb")


@pytest.mark.parametrize(
    "source", ["print('')", "print()", "print(*[])", "from IPython.display import clear_output\nprint('x')\nclear_output()"]
)
def test_what_prints_nothing_misses_no_output(source: str, tmp_path: Path) -> None:
    """C10: an output is missing only where something is printed whatever happens, and stays."""
    made = handed_in(as_it_was)
    made["cells"].append(code_cell(source))
    assert lines(write(tmp_path, numbered(made))) == []


@pytest.mark.parametrize("ids", [True, False])
def test_a_copy_of_a_line_of_the_lesson_moves_nothing(ids: bool, tmp_path: Path) -> None:
    """C10: who repeats a cell of the lesson further up has not moved it, with the cells' ids and without."""
    made = handed_in(as_it_was)
    made["cells"].insert(2, code_cell("tallest = max(heights)"))
    for cell in made["cells"] if not ids else ():
        cell["id"], cell["metadata"] = "x", {}
    assert lines(write(tmp_path, numbered(made))) == []


def test_times_are_the_same_times() -> None:
    """C10: %timeit chooses its loops by the clock, and a minute is written otherwise than its seconds."""
    from firstlight.notebooks.second_run import _plain

    loops = "1.2 \u00b5s \u00b1 0 ns per loop (mean \u00b1 std. dev. of 7 runs, {} each)"
    assert _plain(loops.format("1 loop")) == _plain(loops.format("1,000,000 loops"))
    assert _plain("Wall time: 1min 3s") == _plain("Wall time: 58.2 s") and _plain("best of 5 runs") != _plain("best of 6 runs")
    slow = "The slowest run took 6.01 times longer than the fastest. This could mean that an intermediate result is being cached.\n"
    assert _plain(slow + loops.format("10 loops")) == _plain(loops.format("100 loops"))
