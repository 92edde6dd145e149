"""The catalogue of faults: each has a test that names it in its docstring."""

import ast
import re
from pathlib import Path

FAULTS = set(range(1, 53))
"""What a training, its files, its data, its config, studies and pages survive."""


def named() -> set[int]:
    """Return the numbers of faults in the docstrings of tests: `Fault 7`, `fault 1, fault 3`, `Faults 44, 45 and 46`."""
    found: set[int] = set()
    for path in Path(__file__).parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for numbers in re.findall(r"[Ff]aults? ((?:\d+(?:, | and |, fault |, faults )?)+)", ast.get_docstring(node) or ""):
                    found |= {int(number) for number in re.findall(r"\d+", numbers)}
    return found


def test_nothing_is_saved_by_a_thread_and_nothing_is_forked() -> None:
    """Fault 15, fault 29: there is no thread that an exit could cut off, and no process that a fork could hang."""
    # asks for the main thread; decodes images, reads a file ahead, and waits for them; read what the other end of a pipe says, save
    # nothing; serve pages by turns in one thread, and save nothing but an index that can be made again
    allowed = {
        "dashboard/study.py",  # a lock alone: two requests make one answer
        "data/decode.py",
        "data/shards.py",
        "data/streaming.py",
        "engine/actor_rank.py",
        "engine/actors.py",
        "engine/distributed.py",
        "engine/signals.py",
        "studies/worker.py",
        "studies/workers.py",
    }
    package = Path(__file__).parents[1] / "firstlight"
    for path in package.rglob("*.py"):
        names = {name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for name in imported(node)}
        parallel = {"threading", "_thread", "concurrent", "multiprocessing", "asyncio"} & {name.partition(".")[0] for name in names}
        if path.is_relative_to(package / "dashboard"):
            parallel -= {"asyncio"}  # pages wait for browsers, and save nothing meanwhile
        assert not parallel or path.relative_to(package).as_posix() in allowed, path
        assert "multiprocessing" not in parallel and ".fork(" not in path.read_text(encoding="utf-8")


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_every_fault_is_named_by_a_test() -> None:
    assert sorted(FAULTS - named()) == []
