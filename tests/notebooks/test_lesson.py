"""What the cells of a lesson call: guesses, measured numbers, data, pictures (C13, E14)."""

from pathlib import Path

import pytest
import torch
from IPython.core.formatters import DisplayFormatter

from firstlight.data.build import load_data
from firstlight.errors import ConfigError
from firstlight.notebooks.lesson import Lesson, begin
from firstlight.plotting.style import new_figure

DIGITS = Lesson(name="means", data="digits", size="small")


def test_a_guess_beside_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    """C13: right within a tenth, words in any case; without a guess it asks for one and goes on."""
    for guess, truth in ((2.1, 2.3), (2.0, 2.3), (None, 2.3), ("Step ", "step"), ("step", "backward")):
        DIGITS.reveal(guess, truth, "loss")
    assert capsys.readouterr().out.splitlines() == [
        "loss: you said 2.1, it is 2.3: right",
        "loss: you said 2, it is 2.3: look again at why",
        "loss: write your guess first, then run this cell again",
        "loss: you said Step, it is step: right",
        "loss: you said step, it is backward: look again at why",
    ]


def test_a_number_is_held_against_its_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    """E14: kept with its bounds, printed once also where it ends a cell, and an error where it lies outside."""
    lesson = Lesson(name="means", data="digits", size="small")
    value = lesson.measured("accuracy", torch.tensor(0.5), least=0.25, most=0.75)
    assert capsys.readouterr().out == "accuracy: 0.5 (at least 0.25 and at most 0.75)\n"
    assert value == 0.5 and lesson.numbers == {"accuracy": 0.5} and lesson.bounds == {"accuracy": (0.25, 0.75)}
    assert DisplayFormatter().format(value) == ({}, {}) and DisplayFormatter().format(0.5) != ({}, {})
    for bounds, told in (({"least": 0.6}, "at least 0.6"), ({"most": 0.4}, "at most 0.4"), ({"most": float("nan")}, "at most nan")):
        with pytest.raises(AssertionError, match=f"accuracy is 0.5, and the lesson says {told}"):
            lesson.measured("accuracy", 0.5, **bounds)
    with pytest.raises(AssertionError, match="accuracy is nan"):
        lesson.measured("accuracy", float("nan"), least=0.1)


def test_data_come_from_the_training_part_alone() -> None:
    """E14: the test set stays sealed; images in [0, 1], fewer on request with the classes in proportion, the same for a seed."""
    train, val = DIGITS.load()
    whole = load_data("digits")
    assert len(train.labels) + len(val.labels) == len(whole.labels) and train.images.min() >= 0 and train.images.max() == 1
    few, same_val = DIGITS.load(num_train=100)
    assert len(few.labels) == 100 and torch.bincount(few.labels).min() >= 8 and torch.equal(val.images, same_val.images)
    assert torch.equal(few.images, DIGITS.load(num_train=100)[0].images)


def test_a_lesson_says_what_it_runs_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """E14: the data and the size, by the environment; a size that there is not is refused; pictures go below the folder it runs in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTLIGHT_DATA", str(tmp_path))
    monkeypatch.setenv("FIRSTLIGHT_LESSON", "small")
    lesson = begin("means")
    assert (lesson.data, lesson.pick(small=1, full=2), lesson.on(mnist=3, digits=4)) == ("digits", 1, 4)
    figure, _ = new_figure(1, 1, width=2, height=2)
    lesson.show(figure, "one")
    assert capsys.readouterr().out.splitlines()[-1] == "picture: pictures/means-one.png"
    assert (tmp_path / "pictures" / "means-one.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setenv("FIRSTLIGHT_LESSON", "tiny")
    with pytest.raises(ConfigError, match="FIRSTLIGHT_LESSON=tiny is no size of a lesson"):
        begin("means")
