"""E12: a run as files that other programs load, each of which answers as the run does."""

import json
import os
import re
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import firstlight as fl
from firstlight.config.describe import to_dict
from firstlight.data.normalize import Normalize
from firstlight.engine.evaluate import eval_mode, look_again
from firstlight.engine.places import data_dir_of
from firstlight.errors import ConfigError, FirstlightError, RunNotFoundError
from firstlight.export.description import EXTRA_FILE, Description, without_folders
from firstlight.export.export import FORMATS, Subject, _subject, _write, export, refuse_failed
from firstlight.export.network import pixel_network
from firstlight.export.onnx_file import OPSET
from firstlight.export.parity import TOLERANCE, compare, logits_by_batches
from firstlight.export.predict import open_exported, predict_with_file
from firstlight.export.torch_files import _without_sources
from firstlight.models.build import MODELS
from firstlight.tracking.console import Console

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fl.Run:
    """A quickstart of two epochs."""
    folder = tmp_path_factory.mktemp("exported")
    return fl.train("quickstart", "train.epochs=2", "device.threads=1", name="digits", runs_dir=folder, console=Console(quiet=True))


@pytest.fixture(scope="module")
def result(run: fl.Run) -> dict[str, Any]:
    """What an export in every format says."""
    return export(run.path, list(FORMATS))


@pytest.fixture(scope="module")
def files(result: dict[str, Any]) -> dict[str, Path]:
    return {entry["format"]: Path(entry["file"]) for entry in result["exports"]}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve digits as PNG files, larger than the network takes them, wider than high, some in colour."""
    folder = tmp_path_factory.mktemp("photos")
    digits = fl.load_data("digits", "test")
    for number in range(12):
        image = Image.fromarray(digits.pixels(number)).resize((40 + 4 * (number % 3), 40), Image.Resampling.BILINEAR)
        (image.convert("RGB") if number % 2 else image).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def wanted(run: fl.Run, photos: Path) -> np.ndarray:
    """What the run itself says of the photos."""
    return np.array(fl.predict(run.path, [photos]).probabilities)


def test_every_format_is_checked_on_100_validation_images(run: fl.Run, result: dict[str, Any], files: dict[str, Path]) -> None:
    """E12: parity to 1e-5 with the run, and the same classes."""
    assert [entry["format"] for entry in result["exports"]] == list(FORMATS)
    assert (result["num_images"], result["images"], result["failed"]) == (100, "validation images", [])
    for entry in result["exports"]:
        assert entry["num_other_classes"] == 0
        assert 0 <= entry["max_logit_difference"] <= TOLERANCE and 0 <= entry["max_probability_difference"] <= TOLERANCE
        assert Path(entry["file"]).stat().st_size == entry["bytes"] > 100_000
    assert files["onnx"] == run.path / "export" / "digits.onnx"
    assert result["warnings"] == ["TorchScript is deprecated since torch 2.11; prefer onnx or pt2"]


@pytest.mark.parametrize("name", FORMATS)
def test_predict_takes_the_file_in_the_place_of_the_run(files: dict[str, Path], photos: Path, wanted: np.ndarray, name: str) -> None:
    """E12: the same images, prepared the same way, and the same answers."""
    found = predict_with_file(files[name], [photos], trust_code=True)
    np.testing.assert_allclose(found.probabilities, wanted, atol=TOLERANCE)
    assert [row["image"] for row in found] == [str(path) for path in sorted(photos.iterdir())]
    assert set(found.class_names) == {str(digit) for digit in range(10)}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_says_all_that_a_reader_needs(run: fl.Run, files: dict[str, Path], name: str) -> None:
    found = open_exported(files[name], trust_code=True).description
    assert found.class_names == tuple("0123456789")
    assert (found.image_shape, found.pixels, found.has_graph) == ((1, 8, 8), "uint8", name != "safetensors")
    assert (found.mean, found.std) == tuple(tuple(run.info["data"]["normalize"][key]) for key in ("mean", "std"))
    about = found.about
    assert (about["run"], about["checkpoint"], about["opset"]) == ("digits", "best", OPSET)
    assert (run.path / "checkpoints" / f"step-{about['step']}").is_dir() and about["figures"]["val_accuracy"] == run.summary["val_accuracy"]
    assert about["versions"]["firstlight"] == fl.__version__
    assert about["config"] == json.loads(json.dumps(to_dict(fl.load_config(run.path / "config.yaml"))))


def members_of(path: Path) -> dict[str, bytes]:
    """Return what a file holds, unpacked where it is an archive, and its bytes as they are."""
    if not zipfile.is_zipfile(path):
        return {"": path.read_bytes()}
    with zipfile.ZipFile(path) as archive:
        return {"": path.read_bytes(), **{name: archive.read(name) for name in archive.namelist()}}


@pytest.mark.parametrize("name", FORMATS)
def test_no_path_of_this_machine_is_in_a_file(files: dict[str, Path], run: fl.Run, name: str) -> None:
    """E12: what an export tells of its maker: neither where the package or torch lie, nor the home folder, nor the folder of the run."""
    places = {ROOT, Path(fl.__file__).parent, Path(torch.__file__).parents[1], Path(sys.prefix), Path.home(), Path.cwd(), run.path.parent}
    places |= {place.resolve() for place in places}
    words = [str(place) for place in places if place != Path("/")] + ["site-packages"]
    for member, content in members_of(files[name]).items():
        assert [word for word in words if word in member or word.encode() in content] == [], member


def test_torchscript_without_its_sources_is_the_archive_that_torch_writes(run: fl.Run, tmp_path: Path) -> None:
    """E12: all but the debug files, byte for byte, each at a multiple of 64 as in torch's own; it loads and answers with the same bits."""
    subject, *_ = _subject(run, "best", data_dir_of(None))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(subject.network, (subject.example,), check_trace=False)
        torch.jit.save(script, tmp_path / "plain.pt", {EXTRA_FILE: subject.description.to_json()})
        content = _without_sources((tmp_path / "plain.pt").read_bytes())
        (tmp_path / "ours.pt").write_bytes(content)
        ours = torch.jit.load(tmp_path / "ours.pt")
        assert torch.equal(ours(subject.images), script(subject.images))
    plain, found = members_of(tmp_path / "plain.pt"), members_of(tmp_path / "ours.pt")
    said = {name.partition("/")[2]: member for name, member in plain.items() if name and not name.endswith(".debug_pkl")}
    assert {name.partition("/")[2]: member for name, member in found.items() if name} == said
    assert len(plain) > len(found)
    with zipfile.ZipFile(tmp_path / "ours.pt") as archive:
        for entry in archive.infolist():
            name_length, extra_length = struct.unpack("<HH", content[entry.header_offset + 26 : entry.header_offset + 30])
            assert (entry.header_offset + 30 + name_length + extra_length) % 64 == 0


def test_a_path_in_the_config_is_told_by_its_last_part() -> None:
    """E12: whose folders these were is nobody's business; a run on a folder of photos is the case (below)."""
    settings = {
        "data": {"name": "folder", "path": "/home/me/photos/"},
        "train": {"init_from": r"C:\me\runs\best"},
        "list": ["a/b.tar", 1, None],
    }
    assert without_folders(settings) == {
        "data": {"name": "folder", "path": "photos"}, "train": {"init_from": "best"}, "list": ["b.tar", 1, None]
    }  # fmt: skip


# A program for each format


def programs() -> dict[str, str]:
    """Return the programs of the page by format."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    onnx, safetensors, pt2, lines = blocks[:4]
    load, about = lines.splitlines()
    script = re.sub(r"^network = .*\nabout = .*$", f"{load}\n{about}", pt2, flags=re.MULTILINE)
    assert "torch.jit.load" in script and "torch.export" not in script
    return {"onnx": onnx, "safetensors": safetensors, "pt2": pt2, "torchscript": script}


ALONE = """
import runpy, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
class OthersThanBlocked:
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in BLOCKED else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, OthersThanBlocked()]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TORCHLESS = ["firstlight", "torch", "safetensors", "onnx", "onnxscript"]
TORCH_ALONE = ["firstlight", "onnx", "onnxscript", "onnxruntime"]


@pytest.mark.parametrize("name", FORMATS)
def test_the_program_on_the_page_needs_that_runtime_alone(
    files: dict[str, Path], photos: Path, wanted: np.ndarray, tmp_path: Path, name: str
) -> None:
    """E12: a program that loads each format, run where neither firstlight nor another format's runtime can be imported."""
    program = tmp_path / "program.py"
    program.write_text(programs()[name], encoding="utf-8")
    assert len(programs()[name].splitlines()) <= (32 if name == "safetensors" else 21)
    blocked = {"onnx": TORCHLESS, "safetensors": [*TORCH_ALONE, "numpy"]}.get(name, [*TORCH_ALONE, "safetensors"])
    paths = [str(path) for number, path in enumerate(sorted(photos.iterdir())) if name != "safetensors" or number % 3 == 0]  # square ones
    command = [sys.executable, "-W", "ignore", "-c", f"BLOCKED = {blocked}\n{ALONE}", str(program), str(files[name]), *paths]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    rows = wanted if name != "safetensors" else wanted[::3]
    assert len(rows) == len(paths)
    for line, path, row in zip(done.stdout.splitlines(), paths, rows, strict=True):
        shown, label, probability = line.rsplit(" ", 2)
        assert (shown, label) == (path, str(row.argmax()))
        assert float(probability) == pytest.approx(row.max(), abs=2 * TOLERANCE)


def test_an_onnx_file_is_asked_without_torch(files: dict[str, Path], photos: Path, wanted: np.ndarray, tmp_path: Path) -> None:
    """E12: `firstlight predict FILE.onnx` where torch is not installed."""
    (tmp_path / "command.py").write_text("from firstlight.__main__ import main\nimport sys\nmain(sys.argv[1:])\n", encoding="utf-8")
    words = ["predict", str(files["onnx"]), str(photos), "--out", "answers.csv", "--json"]
    command = [sys.executable, "-c", f"BLOCKED = {TORCHLESS[1:]}\n{ALONE}", "command.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["files"] == ["answers.csv"] and found["num_images"] == 12
    assert [row["label"] for row in found["predictions"]] == [str(label) for label in wanted.argmax(1)]
    assert (tmp_path / "answers.csv").read_text().splitlines()[0] == "image,label,probability,0,1,2,3,4,5,6,7,8,9"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "command.py"]


# Files that are code


@pytest.mark.parametrize("name", ["pt2", "torchscript"])
def test_code_is_not_loaded_without_being_trusted(files: dict[str, Path], photos: Path, name: str) -> None:
    """Fault 23: "this file is code; pass --trust-code"."""
    with pytest.raises(ConfigError, match="this file is code, and loading it runs what it holds; pass --trust-code"):
        predict_with_file(files[name], [photos])


class Evil:
    """What a file of foreign origin may hold: unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(("suffix", "says"), [(".pt2", "this file is code"), (".pt", "is no TorchScript file"), (".safetensors", "whole")])
def test_nothing_of_a_foreign_file_runs(tmp_path: Path, photos: Path, suffix: str, says: str) -> None:
    """Fault 23: a pickle under any name."""
    torch.save({"network": Evil(tmp_path / "ran")}, tmp_path / f"evil{suffix}")
    with pytest.raises(FirstlightError, match=says):
        predict_with_file(tmp_path / f"evil{suffix}", [photos])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["pt2", "torchscript"])
def test_damaged_files_that_are_trusted_are_one_line(files: dict[str, Path], photos: Path, tmp_path: Path, name: str) -> None:
    """Fault 18 for exported files; a child process says no more than that on stderr."""
    path = tmp_path / f"cut{files[name].suffix}"
    path.write_bytes(files[name].read_bytes()[:5000])
    done = command("predict", str(path), str(photos), "--trust-code")
    assert done.returncode == 4 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: {path} is no ")


# What a file must answer


def subject_of(run: fl.Run) -> Subject:
    return _subject(run, "best", data_dir_of(None))[0]


@pytest.mark.parametrize("shift", [1e-3, float("nan")])
def test_a_file_that_answers_otherwise_is_not_written(run: fl.Run, tmp_path: Path, shift: float) -> None:
    """E12: refused, with the figure, and what stood there before still stands."""
    subject, path = subject_of(run), tmp_path / "digits.safetensors"
    path.write_text("before")
    other = subject.wanted.copy()
    other[:, 3] += shift
    with pytest.raises(FirstlightError, match=r"safetensors: the file does not answer as the run does on 100 validation images: logits"):
        _write("safetensors", path, replace(subject, wanted=other))
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    assert _write("safetensors", path, subject)["max_logit_difference"] < 1e-6


def test_parity_counts_classes_and_scales_logits() -> None:
    wanted = np.array([[100.0, 0.0], [0.0, 1e-6]], np.float32)
    other = wanted.copy()
    other[0, 0] += 5e-4
    found = compare(other, wanted)
    assert found.max_logit_difference == pytest.approx(5e-6, rel=0.05) and found.holds
    flipped = compare(wanted[:, ::-1].copy(), wanted)
    assert flipped.num_other_classes == 2 and not flipped.holds
    assert not compare(wanted + np.float32([[0.0, 0.1]]), wanted).holds


def random_network(model: str, shape: tuple[int, int, int], *overrides: str) -> tuple[Subject, Description]:
    """Return a network with drawn weights and running statistics, 50 random images, and what evaluation makes of them; its description."""
    config = fl.load_config("quickstart", f"model={model}", *overrides)
    torch.manual_seed(0)
    network = fl.build_model(config.model, shape, 10, seed=1, whiten=config.input.whiten)
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    for parameter in network.parameters():  # networks that start at zero would answer nothing
        parameter.data += 0.02 * torch.randn_like(parameter)
    normal = Normalize((0.4,) * shape[0], (0.25,) * shape[0])
    images = torch.randint(0, 256, (50, *shape), dtype=torch.uint8)
    with eval_mode(network):
        seen = normal.apply(images)
        wanted = network(seen)
        if config.evaluation.views != "one":
            wanted = look_again(network, seen, wanted, config.evaluation)
    about = {"config": to_dict(config)}
    described = Description(
        class_names=tuple("abcdefghij"), image_shape=shape, pixels="uint8", mean=normal.mean, std=normal.std, about=about
    )
    whole = pixel_network(network, config, normal, 255.0)
    return Subject(fl.Run(Path()), config, network, whole, described, images, wanted.numpy(), "random images"), described


SMALL = {
    "linear": ((1, 28, 28), ()),
    "mlp": ((1, 8, 8), ("model.norm=before", "model.input_norm=true", "model.output_norm=true", "model.dropout=0.5")),
    "scratch_linear": ((1, 8, 8), ()),
    "scratch_mlp": ((1, 28, 28), ("model.activation=leaky_relu",)),
    "cnn5": ((3, 32, 32), ("model.width=8",)),
    "small_cnn": ((1, 8, 8), ()),
    "digit_cnn": ((1, 28, 28), ("evaluation.views=shift", "evaluation.views_below=0.5")),
    "lenet": ((3, 32, 32), ()),
    "alexnet": ((3, 70, 70), ()),
    "resnet18": ((3, 32, 32), ("model.width=8",)),
    "airbench": ((3, 32, 32), ("model.widths=[8,8,8]", "input.whiten=2", "evaluation.views=mirror_shift", "evaluation.views_below=0.5")),
}


def test_every_network_is_tried() -> None:
    assert SMALL.keys() == MODELS.keys()


QUICK = [(model, name) for model in SMALL for name in ("safetensors", "torchscript") if model != "alexnet"]
QUICK += [("airbench", "onnx"), ("scratch_mlp", "pt2")]
REST = [(model, name) for model in SMALL for name in FORMATS if (model, name) not in QUICK]


@pytest.mark.parametrize(
    ("model", "name"), [*QUICK, *(pytest.param(*pair, marks=pytest.mark.soak) for pair in REST)], ids=lambda value: str(value)
)
def test_every_network_in_every_format(model: str, name: str) -> None:
    """E12: parity of each shipped network, with whitening, further views and normalisation inside; `make soak` tries the slow ones."""
    shape, overrides = SMALL[model]
    subject, _ = random_network(model, shape, *overrides)
    assert subject.wanted.std() > 0.01
    reader = FORMATS[name].reader(Path("file"), FORMATS[name].make(subject))
    found = compare(logits_by_batches(reader, subject.images.numpy()), subject.wanted)
    assert found.holds, found


def test_pixels_that_are_no_whole_255ths_stay_floats(tmp_path: Path) -> None:
    """A12: a run on float images takes such, and uint8 ones too."""
    subject, described = random_network("scratch_linear", (1, 8, 8))
    floats = replace(described, pixels="float32")
    images = torch.rand(50, 1, 8, 8)
    network = pixel_network(subject.model, subject.config, Normalize(described.mean, described.std), floats.white)
    wanted = network(images).numpy()
    reader = FORMATS["torchscript"].reader(
        Path("file"), FORMATS["torchscript"].make(replace(subject, network=network, description=floats, images=images))
    )
    assert compare(reader.logits(images.numpy()), wanted).holds
    assert compare(reader.logits(subject.images.numpy()), subject.wanted).holds
    strict = FORMATS["safetensors"].reader(Path("file"), FORMATS["safetensors"].make(subject))
    with pytest.raises(FirstlightError, match=r"images are float32; this file takes uint8 pixels from 0 to 255; convert them"):
        strict.logits(images.numpy())
    with pytest.raises(FirstlightError, match=r"images have shape \[5, 8, 8\]; this file takes \[N, 1, 8, 8\]; resize"):
        strict.logits(images[:5, 0].numpy())


# Runs without their data, and names


def test_without_the_data_random_images_are_compared_and_it_says_so(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / "photos" / ("ab"[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 12, 3), 6 * number, np.uint8)).save(folder / f"{number}.png")
    settings = ["data=folder", f"data.path={tmp_path / 'photos'}", "model=mlp", "train.epochs=1", "train.ema_decay=0.9"]
    settings += ["split.val_fraction=0", "train.test_at_end=false", "device.precision=bfloat16", "device.threads=1"]
    run = fl.train("quickstart", *settings, name="photos", runs_dir=tmp_path / "runs", console=Console(quiet=True))
    found = export(run.path, ["safetensors"], out=tmp_path / "one.safetensors")
    assert found["images"] == "training images" and found["warnings"] == []
    assert found["run_arithmetic"]["precision"] == "bfloat16" and 0 < found["run_arithmetic"]["max_probability_difference"] < 0.05
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    found = export(run.path, ["safetensors"], out=tmp_path / "two.safetensors")
    assert found["images"] == "synthetic images" and found["num_images"] == 100
    assert "the files are compared on 100 random images instead" in found["warnings"][0]
    first, second = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("one", "two"))
    assert first == second, "what is checked does not change the file"
    opened = open_exported(tmp_path / "one.safetensors")
    assert (opened.image_shape, opened.class_names, opened.description.about["weights"]) == ((3, 10, 12), ("a", "b"), "moving average")
    assert str(tmp_path).encode() not in first and opened.description.about["config"]["data"]["path"] == "photos"
    with pytest.raises(FirstlightError, match=r"has 4 x 4 pixels; this network was trained on 12 x 10"):
        Image.new("L", (4, 4)).save(tmp_path / "small.png")
        predict_with_file(tmp_path / "one.safetensors", [tmp_path / "small.png"])


@pytest.mark.parametrize(
    ("formats", "out", "says"),
    [
        (["onnx"], "model.pt2", r"does not end in \.onnx, as onnx does; change the name or --format"),
        (["onnx", "pt2"], "model.onnx", "is one file, and 2 formats were named; name a folder"),
        (["safetensors"], "taken.txt", "ends in none of .onnx, .pt, .pt2, .safetensors and is no folder; choose another name"),
        (["onxx"], "model", r"--format onxx is none; did you mean 'onnx'\? \(allowed: "),
        ([], "model", "no format was named; add --format"),
    ],
)
def test_names_that_do_not_fit_are_refused(run: fl.Run, tmp_path: Path, formats: list[str], out: str, says: str) -> None:
    (tmp_path / "taken.txt").write_text("x")
    with pytest.raises(ConfigError, match=says):
        export(run.path, formats, out=tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.txt"]


def test_a_run_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match=r"no run at nothing; `firstlight runs` lists"):
        export("nothing", runs_dir=tmp_path)


def command(*words: str, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"{before}\nfrom firstlight.__main__ import main\nimport sys\nmain(sys.argv[1:])"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=variables, check=False)


def test_one_format_fails_and_the_rest_goes_on(run: fl.Run, tmp_path: Path) -> None:
    """Issue 8: an export that a format cannot do is a clear line, the others are written, and the exit code tells."""
    missing = "import sys; sys.modules['onnxscript'] = None"
    words = ["export", str(run.path), "--format", "onnx", "--format", "safetensors", "--out", str(tmp_path / "out"), "--json"]
    done = command(*words, before=missing)
    assert done.returncode == 1
    assert done.stderr == (
        "error: 1 of 2 formats were not written: --format onnx needs onnx and onnxscript; "
        'pip install "firstlight[onnx]"\n'
    )  # fmt: skip
    assert [entry["format"] for entry in json.loads(done.stdout)["failed"]] == ["onnx"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["digits.safetensors"]


def test_a_full_disk_leaves_what_stood_there(run: fl.Run, tmp_path: Path) -> None:
    """Fault 7 for an export: one line with exit code 5, and no half file."""
    path = tmp_path / "digits.safetensors"
    path.write_text("before")
    done = command(
        "export", str(run.path), "--format", "safetensors", "--out", str(path), FIRSTLIGHT_FAILPOINT=f"ENOSPC:from:1:{tmp_path.name}"
    )
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == f"error: cannot write {path}: the disk is full; free some space\n"
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_failures_are_told_at_the_end() -> None:
    refuse_failed({"failed": [], "exports": []})
    with pytest.raises(FirstlightError, match="1 of 3 formats were not written: no room"):
        refuse_failed({"failed": [{"format": "onnx", "error": "no room"}], "exports": [{}, {}]})


@pytest.fixture(autouse=True)
def quiet_torch() -> Iterator[None]:
    """Networks are drawn from the global generator here; leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        yield
