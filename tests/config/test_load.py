"""Loading: base files, overrides, course-style files, and every problem named at once with its place."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from firstlight.config.describe import describe, to_dict, to_yaml
from firstlight.config.kinds import Registries
from firstlight.config.load import config_variants, load_config, shipped_experiments
from firstlight.config.schema import Config, Kind
from firstlight.errors import ConfigError
from firstlight.limits import Fraction, NonNegative, Positive, PositiveInt


def net(shape: object, *, width: PositiveInt = 8, activation: Literal["relu", "gelu"] = "relu", dropout: Fraction = 0.0) -> None: ...
def wide(shape: object, *, hidden: tuple[PositiveInt, ...] = (10, 5)) -> None: ...
def sgd(params: object, *, lr: Positive = 0.1, momentum: Fraction = 0.0, weight_decay: NonNegative = 0.0) -> None: ...
def adam(params: object, *, lr: Positive = 1e-3, beta1: Fraction = 0.9) -> None: ...
def constant(*, warmup_epochs: NonNegative = 0.0) -> None: ...
def digits(part: str, data_dir: Path) -> None: ...
def folder(part: str, data_dir: Path, *, path: str) -> None: ...


REGISTRIES: Registries = {
    "data": {"digits": digits, "folder": folder, "cifar10": digits},
    "model": {"small_cnn": net, "wide": wide, "lenet": net},
    "optim": {"sgd": sgd, "adam": adam},
    "schedule": {"constant": constant},
}


def load(folder: Path, text: str, *overrides: str, **settings: object) -> Config:
    path = folder / "my.yaml"
    path.write_text(text)
    return load_config(path, REGISTRIES, overrides=overrides, settings=settings).config


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    return str(caught.value)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config.name == "my"
    assert config.model == Kind("small_cnn", {"width": 8, "activation": "relu", "dropout": 0.0})
    assert config.train.epochs == 10


def test_base_files_are_a_list_relative_and_nested(tmp_path: Path) -> None:
    """D1: base files, a list, relative paths, more than one level deep; later ones win, the file itself wins over all."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "root.yaml").write_text("seed: 1\ntrain: {epochs: 1, batch_size: 7}\n")
    (tmp_path / "deep" / "left.yaml").write_text("base: root.yaml\ntrain: {epochs: 2}\n")
    (tmp_path / "right.yaml").write_text("optim: {lr: 0.5}\n")
    config = load(tmp_path, "base: [deep/left.yaml, right.yaml]\ntrain: {log_every: 3}\n")
    assert (config.seed, config.train.epochs, config.train.batch_size, config.train.log_every) == (1, 2, 7, 3)
    assert config.optim.options["lr"] == 0.5


def test_a_shipped_experiment_is_a_base_by_name(tmp_path: Path) -> None:
    assert "quickstart" in shipped_experiments()
    assert "outside" not in refusal(tmp_path, "base: quickstart\nmodel: {name: wide, hidden: [0]}\n")


def test_overrides_win_and_name_kinds_in_short(tmp_path: Path) -> None:
    """A4, B7: `data=cifar10` and `optim.lr=...` on the same file."""
    config = load(tmp_path, "optim: {lr: 0.1}\n", "optim.lr=1e-3", "data=cifar10", "model.width=16")
    assert config.optim.options["lr"] == 1e-3
    assert config.data.name == "cifar10"
    assert config.model.options["width"] == 16


def test_another_kind_drops_the_settings_of_the_old(tmp_path: Path) -> None:
    config = load(tmp_path, "optim: {name: sgd, lr: 0.5, momentum: 0.9}\n", "optim=adam")
    assert config.optim == Kind("adam", {"lr": 1e-3, "beta1": 0.9})


def test_settings_from_python(tmp_path: Path) -> None:
    config = load(tmp_path, "", optim={"lr": 1}, model={"name": "wide", "hidden": (3, 2)})
    assert config.optim.options["lr"] == 1.0
    assert config.model.options["hidden"] == (3, 2)


def test_the_resolved_config_reads_back_equal(tmp_path: Path) -> None:
    """D1: the resolved config is written to the run."""
    config = load(tmp_path, "optim: {name: adam, lr: 1e-5}\nmodel: {name: wide, hidden: [4]}\nname: 'no'\n")
    assert load(tmp_path, to_yaml(config)) == config


def test_describe_names_the_place_of_each_key(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("seed: 3\ntrain:\n  epochs: 4\n")
    loaded = load_config(path, REGISTRIES, overrides=["train.batch_size=5"])
    lines = describe(loaded.config, loaded.origins).splitlines()
    assert [line for line in lines if line.endswith(f"# {path}:3") and "epochs: 4" in line]
    assert [line for line in lines if line.endswith("# override") and "batch_size: 5" in line]


COURSE = """
BASE: ["base_course.yaml"]
MODEL: {NAME: "lenet", NUM_CLASSES: 10}
DATA: {DATASET: "cifar10", BATCH_SIZE: 64, IMG_SIZE: 32, NUM_WORKERS: 4}
TRAIN:
  EPOCHS: 30
  LR_SCHEDULER: {NAME: constant}
  OPTIMIZER: {NAME: sgd, MOMENTUM: 0.9}
OUTPUT: "output/lenet_cifar10"
"""


def test_course_style_files_load(tmp_path: Path) -> None:
    """D1: files written in the course's own style (BASE, MODEL: {NAME: ...}, upper case) load."""
    (tmp_path / "base_course.yaml").write_text("TRAIN: {LR: 3e-4, WARMUP_EPOCHS: 2}\nAUG: {COLOR_JITTER: 0.4}\nSEED: 5\n")
    path = tmp_path / "course.yaml"
    path.write_text(COURSE)
    loaded = load_config(path, REGISTRIES)
    config = loaded.config
    assert (config.name, config.seed, config.model.name, config.data.name) == ("lenet_cifar10", 5, "lenet", "cifar10")
    assert (config.input.image_size, config.input.num_classes, config.train.batch_size, config.train.epochs) == (32, 10, 64, 30)
    assert config.optim == Kind("sgd", {"lr": 3e-4, "momentum": 0.9, "weight_decay": 0.0})
    assert config.schedule.options["warmup_epochs"] == 2
    assert config.augment.color_jitter == 0.4
    assert loaded.notes == ("course.yaml: DATA.NUM_WORKERS is not used: data live in memory and need no workers",)


@pytest.mark.parametrize(
    ("text", "overrides", "parts"),
    [
        ("trian: {epochs: 1}", [], ["my.yaml:1: unknown key 'trian'; did you mean 'train'?"]),
        ("train:\n  epoch: 1", [], ["my.yaml:2: unknown key 'epoch' in train; did you mean 'epochs'?"]),
        ("train: {epochs: true}", [], ["my.yaml:1: train.epochs is true; it must be a valid integer"]),
        ("train: {epochs: 2.5}", [], ["train.epochs is 2.5"]),
        ("train: {epochs: 0}", [], ["train.epochs is 0; it must be >= 1"]),
        ("optim: {lr: fast}", [], ['my.yaml:1: optim.lr is "fast"; it must be a valid number']),
        ("optim: {lr: .nan}", [], ["optim.lr is NaN; it must be > 0"]),
        ("", ["optim.lr=fast"], ['override: optim.lr is "fast"']),
        ("model: lenett", [], ["my.yaml:1: 'lenett' is no model; did you mean 'lenet'? (allowed: lenet, small_cnn, wide)"]),
        ("model: {name: wide, width: 3}", [], ["unknown key 'width' in model 'wide'", "it belongs to small_cnn, lenet"]),
        ("optim: {sgd: {lr: 1}, adam: {lr: 1}}", [], ["optim names 'sgd' and holds 'sgd', 'adam' as well; keep one kind"]),
        ("", ["optim=sgd", "optim.name=adam"], ["optim.name is given twice, as 'sgd' and as 'adam'; keep one"]),
        ("model: [lenet, wide]", [], ["model needs one name, found ['lenet', 'wide']"]),
        ("data: folder", [], ["data.path is required"]),
        ("train: 5", [], ["my.yaml:1: train is a section"]),
        ("- a\n- b", [], ["a config is a mapping of keys to values, found list"]),
        ("base: my.yaml", [], ["base files lead back to themselves", "my.yaml -> "]),
        ("base: gone.yaml", [], ["my.yaml: base file", "is not there"]),
        ("base: ../../../../etc/passwd", [], ["lies outside"]),
        ("MODEL: {NAMES: lenet}", [], ["my.yaml:1: unknown key MODEL.NAMES; did you mean 'MODEL.NAME'?"]),
        ("MODEL: {NAME: lenet}\nmodel: wide", [], ["both styles in one file: model"]),
        ("BASE: my.yaml", [], ["base files lead back to themselves", "my.yaml -> "]),
        ("base: [3]", [], ["my.yaml: base is [3]; it must be a file name or a list of file names"]),
        ('base: "a\\0b"', [], ["base file a\\x00b is not there"]),
        (f"base: {'x' * 5000}", [], ["is not there"]),
        ("TRAIN: 3", [], ["my.yaml:1: TRAIN is a section; write its keys below it"]),
        ("TRAIN: &t {EPOCH: 3}\nMODEL: *t", [], ["2 problems", "my.yaml:2: unknown key MODEL.EPOCH;"]),
        ("seed: 0x" + "f" * 5000, [], ['my.yaml:1: seed is "0xfff', "it must be a valid integer"]),
        ("", [f"{'a.' * 100_000}b=1"], ["a key has at most 64 parts"]),
        ("train: {patience: 2}", ["split.val_fraction=0"], ["my.yaml:1: train.patience is 2, but nothing is validated; set split.val"]),
        ("TRAIN: {LR: 1, BASE_LR: 2}", [], ["optim.lr is given twice, as 1 and (by TRAIN.BASE_LR) as 2"]),
        ("", ["optim.lr"], ["'optim.lr' is no override; write key=value"]),
        ("", ["nothing.at.all=1"], ["unknown key 'nothing'"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line_with_its_place(tmp_path: Path, text: str, overrides: list[str], parts: list[str]) -> None:
    """Faults 44, 45, 46: place, what is allowed, the nearest key."""
    message = refusal(tmp_path, text, *overrides)
    assert "\n" not in message or parts[0] == "2 problems"
    assert max(map(len, message.splitlines())) < 500 + 3 * len(str(tmp_path))
    for part in parts:
        assert part in message


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, "seed: -1\ntrain: {epochs: 0, batchsize: 3}\nmodel: lenett\n", "optim.lr=0")
    assert message.startswith("5 problems in the config:\n")
    for part in ("seed is -1", "train.epochs is 0", "unknown key 'batchsize'", "'lenett' is no model", "optim.lr is 0"):
        assert part in message


def test_of_very_many_problems_the_first_are_listed(tmp_path: Path) -> None:
    """Fault 44."""
    message = refusal(tmp_path, "".join(f"kay{number}: 1\n" for number in range(1000)))
    assert message.startswith("1,000 problems in the config, the first 20 are:\n")
    assert len(message.splitlines()) == 21


def test_base_files_that_double_at_each_level_are_refused(tmp_path: Path) -> None:
    """Fault 46: thirty small files that name the next one twice would be read 2^30 times."""
    for number in range(30):
        (tmp_path / f"base{number}.yaml").write_text(f"base: [base{number + 1}.yaml, base{number + 1}.yaml]\n")
    (tmp_path / "base30.yaml").write_text("seed: 1\n")
    message = refusal(tmp_path, "base: base0.yaml")
    assert "more than 100 base files, each counted as often as it is named" in message
    assert "my.yaml -> " in message and "base28.yaml -> " in message


def test_base_files_may_go_64_levels_deep(tmp_path: Path) -> None:
    """Fault 46: depth is bounded, and the chain is shown."""
    for number in range(70):
        (tmp_path / f"base{number}.yaml").write_text(f"base: base{number + 1}.yaml\n")
    assert "base files go more than 64 levels deep: " in refusal(tmp_path, "base: base0.yaml")
    (tmp_path / "base60.yaml").write_text("seed: 7\n")
    assert load(tmp_path, "base: base0.yaml").seed == 7


def test_a_file_too_large_for_a_config_is_not_read(tmp_path: Path) -> None:
    """Fault 46: a gigabyte (sparse here) is refused by its size, as the config and as a base file."""
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(1 << 30)
    assert "huge.yaml: 1,073,741,824 bytes; a config has at most 1,048,576" in refusal(tmp_path, "base: huge.yaml")


def test_links_in_a_circle_are_no_base_file(tmp_path: Path) -> None:
    """Fault 46."""
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert "base file loop.yaml is not there" in refusal(tmp_path, "base: loop.yaml")


def test_aliases_share_a_section_in_both_styles(tmp_path: Path) -> None:
    assert load(tmp_path, "input: &a {image_size: 3}\nmodel: {name: wide, hidden: &h [4]}\n").input.image_size == 3
    course = "MODEL: &m {NAME: &n lenet}\nDATA: {DATASET: digits}\nTRAIN: {OPTIMIZER: &o {NAME: sgd}, LR_SCHEDULER: {NAME: constant}}\n"
    assert load(tmp_path, course).model.name == "lenet"
    found = refusal(tmp_path, course + "AUG: *o\n")
    assert "my.yaml:4: unknown key AUG.NAME" in found


def test_an_empty_section_says_nothing(tmp_path: Path) -> None:
    """All keys of a section may be commented out."""
    (tmp_path / "root.yaml").write_text("train: {epochs: 2}\n")
    assert load(tmp_path, "base: root.yaml\ntrain:\n  # epochs: 3\n").train.epochs == 2
    (tmp_path / "root.yaml").write_text("TRAIN: {EPOCHS: 2}\n")
    assert load(tmp_path, "BASE: root.yaml\nTRAIN:\nSEED: 1\n").train.epochs == 2


def test_settings_from_python_may_be_paths_and_numpy_scalars(tmp_path: Path) -> None:
    config = load(
        tmp_path, "", seed=np.int64(3), data={"name": "folder", "path": tmp_path}, model={"name": "wide", "hidden": np.array([3, 2])}
    )
    assert (config.seed, config.data.options["path"], config.model.options["hidden"]) == (3, str(tmp_path), (3, 2))
    with pytest.raises(ConfigError, match=r"^optim\.lr cannot be such a object; give text, a number"):
        load(tmp_path, "", optim={"lr": object()})


def test_every_key_of_the_schema_can_be_set_and_reads_back(tmp_path: Path) -> None:
    """D1: each key is accepted; that each is read by something is shown in tests/engine/test_keys.py."""
    tree = to_dict(load(tmp_path, ""))
    flat = [f"{section}.{key}" for section, value in tree.items() if isinstance(value, dict) for key in value]
    for key in flat:
        section, name = key.split(".")
        assert f"unknown key {name!r}" not in _message_of(tmp_path, f"{section}: {{{name}: '?'}}")


def _message_of(folder: Path, text: str) -> str:
    try:
        load(folder, text)
    except ConfigError as error:
        return str(error)
    return ""


VARIANTS: list[dict[str, object]] = [
    {},
    {"optim": {"lr": 0.5}},
    {"optim": "adam"},
    {"optim": {"name": "adam", "lr": 0.5}, "seed": 3, "name": "other"},
    {"optim": {"name": "adam", "momentum": 0.5}},
    {"model": {"name": "wide", "hidden": [4, 4]}, "train": {"epochs": 3, "patience": 2}},
    {"model": {"width": 16}, "split": {"val_fraction": 0}, "train": {"patience": 2}},
    {"train": None},
    {"train": 3},
    {"optim": {"lr": -1}, "nonsense": 1},
    {"seed": -1},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_a_variant_is_what_a_whole_load_makes_of_it(tmp_path: Path, settings: dict[str, object]) -> None:
    """The fast path of studies against the plain one: the same config, or the same error."""
    (tmp_path / "base.yaml").write_text("model: {name: small_cnn, width: 12}\noptim: {name: sgd, lr: 0.2, momentum: 0.9}\n")
    path = tmp_path / "my.yaml"
    path.write_text("base: base.yaml\ntrain: {epochs: 7}\noptim: {weight_decay: 0.01}\n")
    vary = config_variants(path, REGISTRIES)
    vary({"optim": {"lr": 0.7}, "seed": 9})  # one variant leaves nothing behind for the next
    try:
        expected = load_config(path, REGISTRIES, settings=settings).config
    except ConfigError as error:
        with pytest.raises(ConfigError) as caught:
            vary(settings)
        assert str(caught.value) == str(error)
    else:
        assert vary(settings) == expected
