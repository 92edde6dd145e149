"""`inspect data` and `inspect warmup` as a user meets them: what is found, what is written, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import firstlight as fl
from firstlight.__main__ import main
from firstlight.tracking.console import Console
from firstlight.tracking.run import load_run

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder; no data but those of the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTLIGHT_CACHE", str(tmp_path / "cache"))
    for name in ("FIRSTLIGHT_DATA", "FIRSTLIGHT_RUNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command line; its exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        try:
            main(list(words))
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def found(call: Call) -> Callable[..., dict[str, Any]]:
    """Run a command line with --json; what it found."""

    def run(*words: str) -> dict[str, Any]:
        code, out, err = call(*words, "--json")
        assert code == 0 and out.count("\n") == 1, err
        value = json.loads(out)
        assert isinstance(value, dict)
        return value

    return run


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run."""
    folder = tmp_path_factory.mktemp("runs")
    settings = ("model=linear", "train.epochs=1", "augment.rotation=10", "train.test_at_end=false")
    return Path(fl.train("quickstart", *settings, name="turned", runs_dir=folder, console=Console(quiet=True)).path)


def write_digits(folder: Path, change: Callable[[Any], Any] = lambda image: image, part: slice = slice(None)) -> Path:
    """Write the package's digits as PNG files in class folders."""
    digits = fl.load_data("digits")
    assert digits.labels is not None
    for index in range(len(digits))[part]:
        pixels = change(digits.images[index, 0].double().numpy() / 255).clip(0, 1)
        path = folder / "train" / str(int(digits.labels[index])) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(path)
    return folder


def test_a_data_set_by_name(found: Callable[..., dict[str, Any]], call: Call) -> None:
    """A15, D10, E8: counts, balance, statistics, duplicates, pictures as PNG and SVG, and a sentence."""
    result = found("inspect", "data", "digits")
    digits = fl.load_data("digits")
    assert digits.labels is not None
    data = fl.load_data("digits")
    assert (result["what"], result["split"], result["run"]) == ("data", "train", None)
    assert result["num_images"] + result["num_val"] == len(data)
    assert [row["images"] + row["val"] for row in result["classes"]] == digits.labels.bincount().tolist()
    assert json.loads(Path("inspection/data-digits.json").read_text()) == result
    assert sorted(Path("inspection").iterdir()) == sorted(map(Path, result["files"]))
    assert [Path(file).suffix for file in result["files"]] == [".png", ".svg"] * 5 + [".json"]
    assert result["says"].startswith(f"{result['num_images']:,} training images in 10 classes, ")
    assert [row["parts"] for row in result["duplicates"]] == ["train", "train and val", "val"]
    assert result["says"] in call("inspect", "data", "digits")[1]


def test_an_experiment_with_overrides_and_a_folder_with_its_own(found: Callable[..., dict[str, Any]], here: Path) -> None:
    raw = found("inspect", "data", "quickstart", "input.normalize=none", "--out", "raw")
    assert raw["normalize"] == {"mean": [0.0], "std": [1.0]}
    assert (raw["network_values"]["least"], raw["network_values"]["greatest"]) == pytest.approx((0, 1))
    write_digits(here / "mine", part=slice(0, 60))
    mine = found("inspect", "data", "mine", "image_size=10", "split.val_fraction=0.5", "--out", "mine-out")
    assert (mine["image_shape"][1:], mine["num_val"]) == ([10, 10], 24), "a fifth of the 60 is held out to test"


def test_a_run_is_looked_at_as_it_was_trained(run_path: Path, found: Callable[..., dict[str, Any]]) -> None:
    """The figures lie in the run, its normalisation is taken, and --test is recorded."""
    result = found("inspect", "data", str(run_path))
    recorded = load_run(run_path).info["data"]
    assert result["run"] == str(run_path) and result["num_images"] == recorded["num_train"]
    assert result["normalize"] == recorded["normalize"]
    assert json.loads((run_path / "inspection" / "data-train.json").read_text()) == result
    assert load_run(run_path).info["test_openings"] == [] and "test" not in result["num_searched"]
    opened = found("inspect", "data", str(run_path), "--test")
    assert opened["num_searched"]["test"] == 359
    (opening,) = load_run(run_path).info["test_openings"]
    assert "pixels only" in opening["by"] and opening["num_images"] == 359
    assert all(row["second_class"] is None for row in opened["pairs"] if row["second"].startswith("test"))


def test_other_pixels_than_those_of_the_run_are_refused(call: Call, here: Path) -> None:
    """A15: what is shown is what the run was trained on, or one line."""
    write_digits(here / "mine", part=slice(0, 60))
    settings = (f"data={{name: folder, path: {here / 'mine'}}}", "model=linear", "train.epochs=1", "train.test_at_end=false")
    run = fl.train("quickstart", *settings, "split.num_train=null", name="mine", runs_dir=here, console=Console(quiet=True))
    write_digits(here / "mine", lambda image: 1 - image, part=slice(0, 60))
    code, _, errors = call("inspect", "data", str(run.path))
    assert code == 3 and "are not those of run" in errors and errors.count("\n") == 1


def test_planted_duplicates_and_a_wrong_label_are_warned_of(found: Callable[..., dict[str, Any]], here: Path) -> None:
    """Fault 33: the same pixels in two classes, and in the test part."""
    write_digits(here / "mine", part=slice(0, 100))
    one = next((here / "mine" / "train" / "3").iterdir())
    (here / "mine" / "train" / "5" / "copy.png").write_bytes(one.read_bytes())
    (here / "mine" / "test" / "3").mkdir(parents=True)
    (here / "mine" / "test" / "3" / "again.png").write_bytes(one.read_bytes())
    for label in range(10):
        (here / "mine" / "test" / str(label)).mkdir(exist_ok=True)
    result = found("inspect", "data", "mine", "--test", "split.val_fraction=0")
    assert any(warning.startswith("1 images have the same pixels as one of another class") for warning in result["warnings"])
    assert any(warning.startswith("1 test images are training or validation images") for warning in result["warnings"])


def test_two_sets_are_put_beside_each_other(found: Callable[..., dict[str, Any]], call: Call, here: Path) -> None:
    """B13: folders of the same digits, one of them darker; the sentence names it."""
    first = write_digits(here / "clean", part=slice(0, 700))
    second = write_digits(here / "dark", lambda image: image * 0.6, part=slice(700, None))
    result = found("inspect", "data", "--compare", str(first), str(second))
    assert [row["kind"] for row in result["named"]] == ["contrast"]
    assert result["named"][0]["strength"] == {"contrast_black": pytest.approx(0.6, abs=0.03)}
    assert result["says"].startswith("dark looks like clean with contrast times 0.6")
    assert [Path(file).name for file in result["files"][:2]] == ["compare-clean-dark-sheets.png", "compare-clean-dark-sheets.svg"]
    assert all(Path(file).is_file() for file in result["files"]) and len(result["files"]) == 9
    means = next(row for row in result["statistics"] if row["figure"] == "mean")
    assert means["second"] == pytest.approx(means["first_corrupted"], rel=0.05) and means["first"] > 1.5 * means["second"]


def test_moved_digits_are_named_in_words(found: Callable[..., dict[str, Any]], here: Path) -> None:
    first = write_digits(here / "clean", part=slice(0, 700))
    second = write_digits(here / "moved", lambda image: ndimage.shift(image, (0, 1), order=1), part=slice(700, None))
    result = found("inspect", "data", "--compare", str(first), str(second))
    assert "translation by 1.0 pixels to the right and 0.0 " in result["says"]


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (2, "inspect data", ("nothing to look at", "such as mnist")),
        (2, "inspect data mnits", ("'mnits'", "did you mean 'mnist'?")),
        (2, "inspect data digits quickstart", ("digits and quickstart", "name one data set")),
        (2, "inspect data --compare digits", ("digits", "name two data sets")),
        (2, "inspect data --compare --test digits quickstart", ("--test", "leave it out")),
        (2, "inspect data digits size=3", ("'size'",)),
        (2, "inspect data digits augment.flop=true", ("'flop'", "did you mean 'flip'?")),
        (2, "inspect data digits name=x data=mnist", ("data=mnist", "name one of them")),
        (3, "inspect data mnist", ("train-images", "firstlight data fetch mnist")),
        (2, "inspect warmup digits --num 5000", ("--num 5,000", "allowed: 1 to 1,2")),
        (2, "inspect warmup nothing", ("'nothing'",)),
    ],
)
def test_refused_in_one_line(code: int, words: str, says: tuple[str, ...], call: Call, here: Path) -> None:
    left, out, err = call(*words.split())
    assert (left, out) == (code, "") and err.startswith("error: ") and err.count("\n") == 1, err
    assert [text for text in says if text not in err] == []
    assert sorted(path.name for path in here.iterdir()) in ([], ["cache"])


def test_settings_beside_a_run_are_refused(run_path: Path, call: Call) -> None:
    code, _, err = call("inspect", "data", str(run_path), "augment.rotation=50")
    assert code == 2 and "augment.rotation=50" in err and "leave it out" in err


def test_sets_of_two_sizes_cannot_be_compared(here: Path, call: Call) -> None:
    write_digits(here / "mine", part=slice(0, 60))
    code, _, err = call("inspect", "data", "--compare", "digits", "mine", "split.seed=1")
    assert code in (0, 3)
    code, _, err = call("inspect", "data", "--compare", "digits", "coloured" if write_colours(here / "coloured") else "")
    assert code == 3 and err.count("\n") == 1 and "1 x 8 x 8 and 3 x 12 x 12" in err


def write_colours(folder: Path) -> Path:
    for name in ("red", "blue"):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(12):
            colour = (100 + number, 0, 0) if name == "red" else (0, 0, 100 + number)
            Image.new("RGB", (12, 12), colour).save(folder / "train" / name / f"{number}.png")
    return folder


def test_the_warm_up(found: Callable[..., dict[str, Any]], call: Call) -> None:
    """A14: as a command."""
    result = found("inspect", "warmup", "digits", "--num", "200", "--seed", "4")
    assert (result["num_images"], result["seed"], result["inputs_shape"]) == (200, 4, [200, 64])
    shown = call("inspect", "warmup", "digits", "--num", "200", "--seed", "4")[1]
    assert result["says"] in shown and "X (200, 64), y (200,) of +1 for odd and -1 for even" in shown


@pytest.mark.parametrize("name", ["data", "warmup"])
def test_help_explains_every_option(name: str, call: Call) -> None:
    code, out, err = call("inspect", name, "--help")
    assert code == 0 and err == "" and out.startswith("Usage: firstlight inspect") and "default: False" not in out
