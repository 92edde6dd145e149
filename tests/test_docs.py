"""The pages say what is true: links resolve, commands parse, configs load, examples run, the reference is up to date."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import firstlight as fl
from firstlight import cli
from firstlight.config.load import SHIPPED
from firstlight.data.build import SOURCES
from firstlight.engine.sources import load_with_origins
from firstlight.errors import ConfigError
from firstlight.models.build import MODELS
from firstlight.studies.study import load_study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")] + sorted((ROOT / "docs").rglob("*.md"))
NO_MEANING_YET = {"train.epochs", "train.batch_size", "device.name", "device.memory_format"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def shell_commands() -> list[tuple[str, str, str | None]]:
    """Every (page, firstlight command, error shown below it) of the shell blocks, and the command of each shipped config."""
    found: list[tuple[str, str, str | None]] = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for command, error in re.findall(r"^(firstlight .*)\n((?:error: .*\n(?:  .*\n)*)?)", block, flags=re.MULTILINE):
                found.append((page.name, command, error.removeprefix("error: ").rstrip("\n") or None))
    for path in sorted(SHIPPED.rglob("*.yaml")):
        run = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# run: ").partition("  ")[0]
        found += [(path.name, command, None) for command in run.split(" && ")]
    return found


def inline_commands() -> list[tuple[str, str]]:
    """Every (page, command) between backticks in prose."""
    return [(page.name, command) for page in PAGES for command in re.findall(r"`(firstlight [^`\n]+)`", page.read_text(encoding="utf-8"))]


@pytest.fixture
def example_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the YAML files that the pages show, each named in its first line."""
    for page in PAGES:
        for block in blocks(page, "yaml"):
            (tmp_path / block.partition("\n")[0].removeprefix("# ").partition(",")[0]).write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(command: str) -> dict[str, object]:
    """Return the arguments of a command line, or raise what the command would say."""
    words = shlex.split(command, comments=True)[1:]
    function, bound, _ = cli.app.parse_args(words, exit_on_error=False, print_error=False)
    return {"function": function, **bound.arguments}


def load_train_config(arguments: dict[str, object]) -> None:
    """Resolve the config of a parsed `train` command."""
    source, overrides = cli.split_settings(arguments.get("settings", ()))  # type: ignore[arg-type]
    load_with_origins(source or "quickstart", overrides)


def load_sweep(arguments: dict[str, object]) -> None:
    """Check the study of a parsed `sweep` command."""
    source, overrides = cli.split_settings(arguments.get("settings", ()))  # type: ignore[arg-type]
    assert source is not None
    load_study(source, overrides, grid=arguments.get("grid") or ())  # type: ignore[arg-type]


def test_there_are_commands_to_check() -> None:
    assert len(shell_commands()) > 40
    assert len(inline_commands()) > 20


@pytest.mark.parametrize(("page", "command", "error"), shell_commands())
def test_command_line_parses(page: str, command: str, error: str | None, example_files: Path) -> None:
    """A new user can type what the pages show; where an error is shown, it is the real one."""
    arguments = parse(command)
    if arguments["function"] is cli.sweep:
        load_sweep(arguments)
    if arguments["function"] is not cli.train:
        return
    if error is None:
        load_train_config(arguments)
        return
    with pytest.raises(ConfigError) as caught:
        load_train_config(arguments)
    assert str(caught.value) == error


@pytest.mark.parametrize(("page", "command"), inline_commands())
def test_inline_command_exists(page: str, command: str) -> None:
    first, *others = [word for word in shlex.split(command)[1:] if re.fullmatch(r"[a-z|-]+", word)]
    if first.startswith("--"):
        return
    for found in [cli.app[name] for name in first.split("|")]:
        if found in (cli.data, cli.tune, cli.inspect, cli.profile):
            assert all(name in found for name in others[0].split("|"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), target
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), flags=re.MULTILINE) if anchor else []
            assert not anchor or anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings], target


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "make_docs.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_setting_has_a_meaning() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w.]+)` \|.*\|  \|$", text, flags=re.MULTILINE)) <= NO_MEANING_YET


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_config_begins_with_run_and_expect(path: Path) -> None:
    """Habit 1: a config opens with its command and its expected result."""
    run, expect, *_ = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"# run: firstlight .+", run)
    assert re.fullmatch(r"# expect: .+\d.*|# expect: not measured yet .+", expect)


def test_the_drawn_house_names_every_room() -> None:
    """D2: the docs hold a picture of the structure."""
    drawn = blocks(ROOT / "docs" / "architecture.md", "")[0]
    package = ROOT / "firstlight"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms == set(re.findall(r"^(?:floor \d  |         ) (\w+)  ", drawn, flags=re.MULTILINE))


def load_example(index: int, tmp_path: Path) -> ModuleType:
    """Import one of the Python examples of the architecture page."""
    path = tmp_path / f"example{index}.py"
    modules = [block for block in blocks(ROOT / "docs" / "architecture.md", "python") if block.startswith('"""')]
    path.write_text(modules[index], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_added_model_and_data_set_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D2: a new model or data set is one file and one line in a registry."""
    monkeypatch.setitem(MODELS, "one_hidden", load_example(0, tmp_path).OneHidden)
    monkeypatch.setitem(SOURCES, "stripes", load_example(1, tmp_path).load_stripes)  # type: ignore[call-overload]
    words = ["model=one_hidden", "model.width=32", "data=stripes", "train.epochs=3"]
    run = fl.train("quickstart", *words, runs_dir=tmp_path)
    assert run.info["data"]["source"] == "stripes (1,000 images)"
    assert run.config["model"] == {"name": "one_hidden", "width": 32}
    assert run.summary["test_accuracy"] > 0.9
    with pytest.raises(ConfigError, match=r"model\.width is 0; it must be >= 1"):
        fl.load_config("quickstart", "model=one_hidden", "model.width=0")


def test_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A8: the same from a notebook cell."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FIRSTLIGHT_RUNS", raising=False)
    example = blocks(ROOT / "README.md", "python")[0]
    exec(example.replace('{"lr": 0.1}', '{"lr": 0.1}, train={"epochs": 1}'), {})
    assert len(fl.list_runs(tmp_path / "runs")) == 1
