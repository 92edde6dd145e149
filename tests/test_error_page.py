"""docs/errors.md: every message of the package, with what to do."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PARTS = (
    "data/decode.py",
    "files.py: cannot write",
    "engine/init_from.py: train.init_from: {path}: {error}",
    "export/weights_file.py: {self.path}: {error}",
    "export/export.py: {failed} of",
)
"""Not whole messages: what is wrong with an image, which the reader of a folder completes; and errors that pass a remedy on."""


@pytest.fixture(scope="module")
def error_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("error_page", ROOT / "scripts" / "error_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_message_says_what_to_do(error_page: ModuleType) -> None:
    """Habit 7: what was wrong, where, what is allowed, what to do."""
    found = {f"{message.module}: {message.text}": message.remedy for message in error_page.messages()}
    assert len(found) > 150
    assert [text for text, remedy in found.items() if not remedy and not text.startswith(PARTS)] == []


def test_a_message_is_read_from_the_code_with_its_gaps_and_alternatives(
    error_page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
def f(path, error, row):
    trail = f"{path}: a base"
    if row:
        raise ConfigError(f"{trail} is {'here' if error else 'gone'}, row {row['step']} of {len(row) - 1}; look" + " twice")
    raise DataError(f"no {brief(repr(path))}{did_you_mean(path, row)}") from error
def g(self): self.refuse(1, "nested"); raise ConfigError(report(1))
"""
    path = tmp_path / "code.py"
    path.write_text(code)
    monkeypatch.setattr(error_page, "PACKAGE", tmp_path)
    found = sorted((message.error, message.cause, message.remedy) for message in error_page.messages_of(path))
    assert found == [
        ("ConfigError", "nested", ""),
        ("ConfigError", "{path}: a base is gone, row {step} of {len(row) - 1}", "look twice"),
        ("ConfigError", "{path}: a base is here, row {step} of {len(row) - 1}", "look twice"),
        ("DataError", "no {path}", "did you mean NAME? (allowed: NAMES)"),
    ]


def test_every_error_of_the_code_is_on_the_page(error_page: ModuleType) -> None:
    """A raise whose message the page cannot read would be missing; the few that hand on a message are known."""
    read = {(message.error, message.module) for message in error_page.messages()}
    handed_on = {("InterruptedRunError", f"engine/{name}.py") for name in ("loop", "record", "train")}
    raised = {
        (call.func.id, path.relative_to(error_page.PACKAGE).as_posix())
        for path in error_page.PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in error_page.CLASSES
    }
    assert raised - read - handed_on == set()
