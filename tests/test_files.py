"""The only writer: what is replaced is replaced whole, what is locked is locked, what is damaged is refused."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstlight import files
from firstlight.errors import CheckpointError, RunBusyError, StorageError
from firstlight.files import (
    SIDE_BY_SIDE,
    TEMPORARY,
    Appender,
    Lock,
    WriteBatch,
    Writing,
    cache_dir,
    carry_out,
    is_locked,
    make_dir,
    move,
    replacing,
    sha256,
    sha256_of_file,
    storage_errors,
    tensors_from_bytes,
    together,
    write_bytes,
    write_folder,
    write_json,
    write_stream,
    write_text,
)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a b ü.txt"
    write_text(path, "old")
    write_text(path, "new ✓")
    assert path.read_text(encoding="utf-8") == "new ✓"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_writer_that_fails_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    """Fault 1 in small: neither half a file nor a stray temporary one."""
    path = tmp_path / "x"
    write_bytes(path, b"old")

    def chunks():
        yield b"new"
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        write_stream(path, chunks())
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_json_has_null_for_what_is_not_finite(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": (2, None)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [None, 1.5], "c": [2, None]}


def test_a_folder_appears_whole_and_replaces_none(tmp_path: Path) -> None:
    write_folder(tmp_path / "step-1", {"a": [b"1"], "b": [b"", b"2"]})
    with pytest.raises(StorageError, match="step-1: something else stands there"):
        write_folder(tmp_path / "step-1", {"c": [b"3"]})
    assert {p.name: p.read_bytes() for p in (tmp_path / "step-1").iterdir()} == {"a": b"1", "b": b"2"}
    assert not list(tmp_path.glob(f"{TEMPORARY}*"))


def test_a_batch_appears_when_it_is_committed(tmp_path: Path) -> None:
    write_text(tmp_path / "old", "before")
    with WriteBatch() as batch:
        batch.make_dir(tmp_path / "a" / "b")
        batch.write(tmp_path / "old", [b"after"])
        batch.write(tmp_path / "a" / "new", [b"1", b"2"])
        batch.write_folder(tmp_path / "a" / "b" / "step-1", {"x": [b"3"]})
        assert seen(tmp_path) == {"old": "before"}
        batch.commit()
    assert seen(tmp_path) == {"old": "after", "a/new": "12", "a/b/step-1/x": "3"}
    assert not list(tmp_path.rglob(f"{TEMPORARY}*"))


def seen(folder: Path) -> dict[str, str]:
    """Return the files of a folder by name that are in their places."""
    names = {path: str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text() for path, name in names.items() if TEMPORARY not in name}


def test_whatever_operation_of_a_batch_fails_no_file_is_half_and_none_stays_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults 1 and 7: a full disk at each operation in turn, in one of three writings; the others do not notice."""
    refused = 0
    for number in range(1, 100):
        folder = tmp_path / str(number)
        for name in ("a", "b", "c"):
            make_dir(folder / name)
            write_text(folder / name / "last", "before")
        point = files.Failpoint(f"ENOSPC:at:{number}:{number}/b")
        monkeypatch.setattr(files, "_failpoint", point)
        outcomes = together([saving(folder / name) for name in ("a", "b", "c")])
        monkeypatch.undo()
        assert not list(folder.rglob(f"{TEMPORARY}*"))
        assert [outcomes[0], outcomes[2]] == ["saved", "saved"]
        for name in ("a", "c"):
            assert seen(folder / name) == {"last": "after", "step-1/x": "12", "step-1/y": "3"}
        left = seen(folder / "b")
        assert left["last"] in ("before", "after")
        assert left.keys() in ({"last"}, {"last", "step-1/x", "step-1/y"})
        if point.left > 0:
            assert outcomes[1] == "saved"
            break
        refused += 1
        assert outcomes[1].startswith("refused: cannot write")
        assert "the disk is full" in outcomes[1]
    assert refused >= 15


def saving(folder: Path) -> Writing[str]:
    """Write a folder and then a file that names it, as a checkpoint does; answer a refusal."""
    try:
        with WriteBatch() as first:
            first.write_folder(folder / "step-1", {"x": [b"1", b"2"], "y": [b"3"]})
            yield first
        yield from replacing(folder / "last", b"after")
    except StorageError as error:
        return f"refused: {error}"
    return "saved"


def test_writings_wait_for_the_disk_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All contents are flushed before the first gets its name, the common folder once; first batches are safe before second ones begin."""
    done: list[tuple[str, str]] = []

    def note(name: str, path: Path, action: Callable[[], Any], detail: Any = None) -> Any:
        done.append((name, (detail if name == "replace" else path).name))
        return action()

    def work(number: int) -> Writing[int]:
        for part in ("a", "b"):
            yield from replacing(tmp_path / f"{part}{number}", b"x")
        return number

    monkeypatch.setattr(files, "_failpoint", note)
    count = 3
    assert together([work(number) for number in range(count)]) == [0, 1, 2]
    kinds = [name for name, _ in done]
    one_round = ["open", "write"] * count + ["fsync"] * count + ["replace"] * count + ["fsync"]
    assert kinds == one_round * 2
    assert [path for name, path in done if name == "replace"] == ["a0", "a1", "a2", "b0", "b1", "b2"]


def test_a_file_system_that_takes_no_advice_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(handle: int, *words: int) -> None:
        asked.append(handle)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    assert together([replacing(tmp_path / name, b"x") for name in ("a", "b")]) == [None, None]
    assert seen(tmp_path) == {"a": "x", "b": "x"}
    assert len(asked) == 2


def test_an_error_of_one_writing_is_its_own_and_many_hold_few_files_open(tmp_path: Path) -> None:
    """More writings than are carried out at a time; an error of ours that one raises stands in its place, any other ends all."""
    most, handles = 0, Path("/proc/self/fd")

    def num_open() -> int:
        return sum(1 for _ in handles.iterdir()) if handles.is_dir() else 0

    def work(number: int) -> Writing[int]:
        nonlocal most
        with WriteBatch() as batch:
            batch.write(tmp_path / str(number), [b"x"])
            most = max(most, num_open())
            yield batch
        if number == 40:
            raise StorageError("no more")
        return number

    def broken() -> Writing[int]:
        yield WriteBatch()
        with WriteBatch() as batch:
            batch.write(tmp_path / "never", [b"x"])
            raise ValueError("a defect")

    def slow() -> Writing[int]:
        yield WriteBatch()
        yield from replacing(tmp_path / "given up", b"x")
        return 0

    before = num_open()
    outcomes = together([work(number) for number in range(100)])
    assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [number for number in range(100) if number != 40]
    assert isinstance(outcomes[40], StorageError)
    assert most <= before + SIDE_BY_SIDE + 2
    assert len(list(tmp_path.iterdir())) == 100
    with pytest.raises(ValueError, match="a defect"):
        together(given_up := [slow(), broken()])
    assert [writing.gi_frame for writing in given_up] == [None, None]
    assert not (tmp_path / "given up").exists()
    with pytest.raises(StorageError, match="no more"):
        carry_out(work(40))
    assert not list(tmp_path.glob(f"{TEMPORARY}*"))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EROFS, "read-only; choose another folder"),
        (errno.EACCES, "no permission"),
    ],
)
def test_an_operating_system_error_is_one_line_with_path_and_remedy(number: int, remedy: str) -> None:
    with pytest.raises(StorageError) as caught, storage_errors(Path("/runs/x")):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith("cannot write /runs/x: ")
    assert remedy in str(caught.value)


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    """Fault 9."""
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageError, match="runs"):
        make_dir(tmp_path / "runs" / "a")


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    """Fault 7: a real limit on the size of files, in a child process, and the old content survives."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from firstlight.files import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_bytes(Path(sys.argv[1]), b'x' * 5000)\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    path = tmp_path / "x"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"StorageError cannot write {path}: the file size limit is reached")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_appended_lines_are_there_at_once(tmp_path: Path) -> None:
    appender = Appender(tmp_path / "log")
    appender.write_lines(["one", "two"])
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    appender.close()


def test_a_lock_is_held_once_even_in_one_process(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock", "run x"):
        assert is_locked(tmp_path / "lock")
        with pytest.raises(RunBusyError, match="run x is being written by this very process"), Lock(tmp_path / "lock", "run x"):
            pass
        assert is_locked(tmp_path / "lock")
    assert not is_locked(tmp_path / "lock")
    assert not is_locked(tmp_path / "nothing")


HOLD = """
import sys
from pathlib import Path
from firstlight.files import Lock
with Lock(Path(sys.argv[1]), "run x"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_of_another_process_names_it_and_dies_with_it(tmp_path: Path) -> None:
    """Fault 13: the second is refused; kill -9 frees the lock at once."""
    path = tmp_path / "lock"
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == "held\n"
    assert is_locked(path)
    with pytest.raises(RunBusyError, match=f"run x is being written by process {child.pid} since 20"), Lock(path, "run x"):
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    child.stdin.close()
    with Lock(path, "run x"):
        pass


def test_checksums_of_content_and_file_agree(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"abc")
    assert sha256_of_file(tmp_path / "x") == sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_moved_file_is_gone_from_its_old_place(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"1")
    move(tmp_path / "a", tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 8, np.arange(9).tobytes()])
def test_what_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError, match="x is not a whole safetensors file"):
        tensors_from_bytes(content, tmp_path / "x")


def test_the_cache_folder_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTLIGHT_CACHE", "/a")
    assert cache_dir() == Path("/a")
    monkeypatch.delenv("FIRSTLIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_dir() == Path("/b/firstlight")
