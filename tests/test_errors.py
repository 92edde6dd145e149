"""Exit codes and hints."""

import inspect

import pytest

from firstlight import errors
from firstlight.errors import FirstlightError, InterruptedRunError, did_you_mean
from firstlight.limits import Range

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, FirstlightError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_stands_in_the_drawn_tree_with_its_exit_code(cls: type[FirstlightError]) -> None:
    line = next(line for line in (errors.__doc__ or "").splitlines() if cls.__name__ in line.split())
    assert int(line.split(cls.__name__)[1].split()[0]) == cls("x").exit_code


def test_an_interrupted_run_knows_its_signal() -> None:
    assert InterruptedRunError("x", exit_code=143).exit_code == 143


@pytest.mark.parametrize(
    ("word", "allowed", "hint"),
    [
        ("lenett", ["lenet", "mlp"], "; did you mean 'lenet'? (allowed: lenet, mlp)"),
        ("LeNet", ["lenet", "mlp"], "; did you mean 'lenet'? (allowed: lenet, mlp)"),
        ("zzz", ["lenet", "mlp"], " (allowed: lenet, mlp)"),
        ("aaab", [c * 4 for c in "abcdefghijklmn"], "; did you mean 'aaaa'?"),
    ],
)
def test_hints_name_the_nearest_and_all_where_they_are_few(word: str, allowed: list[str], hint: str) -> None:
    assert did_you_mean(word, allowed) == hint


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [(Range(above=0), 0.1, 0), (Range(least=0, below=1), 0, 1), (Range(most=3), 3, 3.1), (Range(least=0), 0, float("nan"))],
)
def test_a_range_refuses_what_lies_outside(bounds: Range, good: float, bad: float) -> None:
    assert bounds.check(good) == good
    with pytest.raises(ValueError, match=f"must be {bounds}"):
        bounds.check(bad)
