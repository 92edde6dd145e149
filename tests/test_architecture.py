"""The house of docs/architecture.md, held: floors, cycles, frames, commands without torch, one writer, nothing unpickled."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "firstlight"
FLOORS = [
    {"errors", "limits"},
    {"files"},
    {"config", "configs"},
    {"data", "models", "optim", "metrics", "tracking", "plotting"},
    {"engine"},
    {"studies", "profiling", "inspection", "export"},
    {"reports", "dashboard", "notebooks"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
TORCH_FREE = ["errors", "limits", "files", "config", "tracking", "plotting", "reports", "dashboard", "cli", "__init__", "__main__"]
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(("firstlight", *path.relative_to(PACKAGE).with_suffix("").parts))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""] + [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def all_imports(path: Path) -> set[str]:
    """Every import of a file, lazy ones and those for type checkers included."""
    return {name for node in ast.walk(tree_of(path)) for name in imported(node)}


def rooms_imported(path: Path) -> set[str]:
    own = {name.split(".")[1] for name in all_imports(path) if name.startswith("firstlight.")}
    return {name for name in own if name in FLOOR_OF}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_down_only(path: Path) -> None:
    """Floor rule 1: a room imports from lower floors and from itself; rooms of one floor do not know each other."""
    room = room_of(path)
    if path.name == "__init__.py" and path.parent == PACKAGE:
        return  # the public names, which are loaded lazily from everywhere
    wrong = {other for other in rooms_imported(path) if other != room and FLOOR_OF[other] >= FLOOR_OF[room]}
    assert not wrong, f"{module_of(path)} on floor {FLOOR_OF[room]} imports {wrong}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_every_room_is_on_a_floor_and_imports_are_absolute(path: Path) -> None:
    assert room_of(path) in FLOOR_OF
    assert not [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom) and node.level]


@pytest.mark.parametrize("path", [path for path in FILES if FLOOR_OF[room_of(path)] == 3 and path.name != "build.py"], ids=module_of)
def test_on_floor_3_only_build_reads_config(path: Path) -> None:
    """Floor rule 2."""
    assert "config" not in rooms_imported(path)


def test_no_import_cycle() -> None:
    """0 cycles between modules, lazy imports included."""
    modules = {module_of(path).removesuffix(".__init__"): path for path in FILES}
    graph = {name: {other for other in all_imports(path) if other in modules and other != name} for name, path in modules.items()}
    graph["firstlight"] = set()  # lazy by name; it would close a circle only if something inside imported the package itself
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) in TORCH_FREE], ids=module_of)
def test_no_torch_at_module_level(path: Path) -> None:
    """Floor rule 3."""
    top = {name.split(".")[0] for node in tree_of(path).body for name in imported(node)}
    assert "torch" not in top


RUN_AND_LOOK = """
import sys
from firstlight.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["runs"], ["--version"]], ids=" ".join)
def test_command_needs_no_torch(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RUN_AND_LOOK, *words], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stderr.strip().endswith("False"), done.stderr


def test_the_engine_needs_neither_pydantic_nor_cyclopts() -> None:
    """The engine's import path holds no pydantic, cyclopts, rich or matplotlib: it runs where only torch is there."""
    unwanted = ["pydantic", "cyclopts", "rich", "matplotlib"]
    code = f"import sys, json, firstlight.engine.train; print(json.dumps([name for name in {unwanted} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_three_frames_from_fit_to_forward(tmp_path: Path) -> None:
    """Floor rule 5: fit -> train_one_epoch -> train_step -> forward, in 2 files."""
    from firstlight.models.small_cnn import SmallCNN

    seen: list[list[tuple[str, str]]] = []

    def spy(module: object, inputs: object) -> None:
        frame, names = sys._getframe(1), []
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith("firstlight.engine"):
                names.append((frame.f_code.co_name, Path(frame.f_code.co_filename).name))
            frame = frame.f_back
        if any(name == "fit" for name, _ in names):
            seen.append(names[: names.index(("fit", "loop.py")) + 1])

    from torch.nn.modules.module import register_module_forward_pre_hook

    import firstlight as fl

    handle = register_module_forward_pre_hook(
        lambda module, inputs: spy(module, inputs) if isinstance(module, SmallCNN) and module.training else None
    )
    try:
        fl.train(
            "quickstart", "train.epochs=1", runs_dir=tmp_path, device={"precision": "float32", "memory_format": "contiguous", "threads": 1}
        )
    finally:
        handle.remove()
    assert seen[0] == [("train_step", "step.py"), ("train_one_epoch", "loop.py"), ("fit", "loop.py")]


WRITES = {
    "write_text",
    "write_bytes",
    "savefig",
    "unlink",
    "rmtree",
    "rename",
    "replace",
    "mkdir",
    "touch",
    "save",
    "savez",
    "tofile",
    "dump",
}


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    found = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    return [(node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""), node) for node in found]


def writes(name: str, call: ast.Call) -> bool:
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if name == "open":
        words = [
            word.value
            for word in [*call.args, *(k.value for k in call.keywords)]
            if isinstance(word, ast.Constant) and isinstance(word.value, str)
        ]
        return any(set(word) <= set("rwaxbt+") and set(word) & set("wax+") for word in words)
    if name == "replace":  # str.replace and dataclasses.replace take two arguments or keywords; Path.replace takes one
        return owner is not None and len(call.args) == 1 and not call.keywords
    if name == "dump":
        return isinstance(owner, ast.Name) and owner.id in ("json", "pickle")
    if name in ("save", "savez"):
        return isinstance(owner, ast.Name) and owner.id in ("torch", "np", "numpy") and not is_buffer(call)
    return name in WRITES and owner is not None


def is_buffer(call: ast.Call) -> bool:
    return any(isinstance(word, ast.Name) and word.id == "buffer" for word in call.args)


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "files.py"], ids=module_of)
def test_only_files_py_writes(path: Path) -> None:
    wrong = [f"line {call.lineno}: {name}" for name, call in calls(path) if writes(name, call)]
    assert not wrong


@pytest.mark.parametrize("path", [path for path in FILES if "h5py" in path.read_text(encoding="utf-8")], ids=module_of)
def test_a_library_that_writes_is_called_by_files_py(path: Path) -> None:
    """h5py writes where it must, in functions that files.make_by calls with a temporary name."""
    functions = {node.name: node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)}
    writing = {name for name, node in functions.items() if any(is_h5py_write(call) for call in ast.walk(node))}
    handed_over = {word.id for name, call in calls(path) if name == "make_by" for word in ast.walk(call) if isinstance(word, ast.Name)}
    assert not {name for name in writing if name not in handed_over and not makes(functions[name])}


def is_h5py_write(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "File"):
        return False
    return any(isinstance(word, ast.Constant) and word.value in ("w", "a", "r+", "w-", "x") for word in node.args)


def makes(function: ast.FunctionDef) -> bool:
    """Whether a function calls make_by itself, with a function inside it."""
    return any(isinstance(node, ast.Call) and getattr(node.func, "id", "") == "make_by" for node in ast.walk(function))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    """F12: no pickle, no eval, no unsafe load in the package."""
    assert not {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"} & {name.split(".")[0] for name in all_imports(path)}
    for name, call in calls(path):
        assert not (name in ("eval", "exec") and isinstance(call.func, ast.Name)), call.lineno
        keywords = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        assert keywords.get("shell") is not True and keywords.get("allow_pickle") is not True, call.lineno
        owner = getattr(getattr(call.func, "value", None), "id", None)
        if name == "load" and owner == "torch":
            assert keywords.get("weights_only") is True, call.lineno
        assert not (owner == "yaml" and name in ("load", "full_load", "unsafe_load")), call.lineno
