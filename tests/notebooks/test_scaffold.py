"""`firstlight new DIR`: the files of a beginner's project, run by themselves in child processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import firstlight as fl
from firstlight.data.corrupted_mnist import write_shards
from firstlight.errors import ConfigError
from firstlight.notebooks.scaffold import new_project


def run(folder: Path, *words: str, data_dir: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"FIRSTLIGHT_DATA": str(data_dir)} if data_dir else {})}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


EACH = """
import contextlib, io, json, runpy, sys
for words in json.loads(sys.argv[1]):
    sys.argv, said, code = ["main.py", *words], io.StringIO(), 0
    with contextlib.redirect_stderr(said):
        try:
            runpy.run_path("main.py", run_name="__main__")
        except SystemExit as end:
            code = end.code
            if isinstance(code, str):  # which Python prints
                said.write(code + "\\n")
                code = 1
    print(json.dumps([code, said.getvalue()]))
"""


def run_each(folder: Path, *commands: tuple[str, ...], data_dir: Path | None = None) -> list[tuple[int, str]]:
    """Run main.py with these words one after another in one child process, for torch takes two seconds; return code and stderr of each."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(folder),
        **({"FIRSTLIGHT_DATA": str(data_dir)} if data_dir else {}),
    }
    command = [sys.executable, "-c", EACH, json.dumps(commands)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return [(code, said) for code, said in map(json.loads, done.stdout.splitlines())]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "my digits"
    new_project(folder)
    return folder


def test_a_hundred_lines_that_read_well(project: Path) -> None:
    """B15: the three files are short, pass the linter, and open no file that could run code."""
    assert sorted(path.name for path in project.iterdir()) == ["README.md", "data.py", "main.py", "model.py", "test_project.py"]
    code = [line for name in ("data.py", "main.py", "model.py") for line in (project / name).read_text().splitlines() if line.strip()]
    assert 80 < len(code) < 125
    assert (project / "README.md").read_text().startswith("# my digits\n")
    rules = ["--isolated", "--line-length=140", "--select=E,F,W,B,UP,SIM", "--no-cache"]
    for words in (["check", *rules], ["format", "--check", "--isolated", "--line-length=140", "--no-cache"]):
        done = run(project, "-m", "ruff", *words, ".")
        assert done.returncode == 0, done.stdout + done.stderr


def test_train_and_evaluate(project: Path, tmp_path: Path) -> None:
    """B15, B18: `python main.py train` saves weights alone and one plot of step against loss; `evaluate` prints the test accuracy."""
    digits = fl.load_data("digits")
    images = torch.nn.functional.interpolate(digits.images[:240].float() / 255, (28, 28))
    part = fl.make_dataset(images, digits.labels[:240], digits.class_names, "small")
    write_shards(part, part, tmp_path / "corruptmnist")
    done = run(project, "main.py", "train", "--lr", "3e-3", "--epochs", "12", "--batch-size", "32", data_dir=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch ") == 12 and done.stdout.endswith("wrote trained_model.pt and training_loss.png\n")
    weights = torch.load(project / "trained_model.pt", weights_only=True)
    assert weights["linear.weight"].shape == (10, 32 * 7 * 7)
    assert (project / "training_loss.png").read_bytes().startswith(b"\x89PNG")
    done = run(project, "main.py", "evaluate", "trained_model.pt", data_dir=tmp_path)
    said, value = done.stdout.strip().split(": ")
    assert said == "test accuracy" and float(value) > 0.9, done.stdout + done.stderr


def test_its_own_tests(project: Path, shared_data: Path) -> None:
    """B16: lengths 30,000 and 5,000, shape (1, 28, 28), all ten labels, output (1, 10)."""
    done = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", data_dir=shared_data)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.soak
def test_the_default_reaches_95_percent(project: Path, shared_data: Path) -> None:
    """B15: test accuracy of at least 0.95 on corrupted MNIST."""
    assert run(project, "main.py", "train", data_dir=shared_data).returncode == 0
    done = run(project, "main.py", "evaluate", "trained_model.pt", data_dir=shared_data)
    assert float(done.stdout.split(": ")[1]) >= 0.95, done.stdout


def test_mistakes_are_one_line(project: Path, tmp_path: Path) -> None:
    """Without data, and with a file that holds no weights."""
    (project / "broken.pt").write_bytes(b"no weights")
    torch.save({"other": torch.zeros(1)}, project / "other.pt")
    cases = {
        ("train",): "corrupted MNIST",
        ("evaluate", "nowhere.pt"): "cannot read nowhere.pt: No such file",
        ("evaluate", "broken.pt"): "broken.pt holds no weights; name the file that",
        ("evaluate", "other.pt"): "other.pt is not for this MyModel",
    }
    for wanted, (code, said) in zip(cases.values(), run_each(project, *cases, data_dir=tmp_path), strict=True):
        assert code == 1 and said.startswith("error: ") and said.count("\n") == 1, said
        assert wanted in said


def test_nonsense_leaves_the_trained_model_alone(project: Path) -> None:
    (project / "trained_model.pt").write_bytes(b"mine")
    for code, said in run_each(project, *(("train", *words) for words in (("--epochs", "0"), ("--batch-size", "0"), ("--lr", "-1")))):
        assert code == 2 and said.endswith("--lr, --epochs and --batch-size must be above 0\n"), said
    assert (project / "trained_model.pt").read_bytes() == b"mine"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds main.py already; name a new folder"):
        new_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["main.py"]
