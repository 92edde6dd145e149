"""Tables on stdout."""

import pytest

from firstlight.tracking.table import print_table, show, show_mflop, sort_rows


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "yes"), (False, "no"), (0.5, "0.5000"), (12.345, "12.3"), (12345.0, "12,345.0"), (12345, "12,345"), ("a", "a")],
)
def test_show(value: object, text: str) -> None:
    assert show(value) == text


def test_show_takes_decimals() -> None:
    assert show(6.019, 1) == "6.0"


def test_rows_fall_by_a_column_and_empty_ones_come_last() -> None:
    rows = [{"a": None}, {"a": 1}, {"b": 0}, {"a": 3}]
    assert sort_rows(rows, "a") == [{"a": 3}, {"a": 1}, {"a": None}, {"b": 0}]


def test_a_table_is_plain_text_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """No column is broken, no line ends in blanks, numbers stand to the right, and markup is text."""
    print_table([{"name": "[red]" + "x" * 200, "val_loss": 0.25}, {"name": "b"}], ("name", "val_loss"))
    head, rule, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "val", "loss"] and set(rule.strip()) == {"─"}
    assert first.split() == ["[red]" + "x" * 200, "0.2500"]
    assert second.rstrip() == second and second.endswith("-") and len(second) == len(first)


def test_a_narrow_terminal_drops_the_last_columns_and_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "40", "LINES": "24", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    rows = [{"name": "x" * 20, "val_accuracy": 0.5, "state": "finished", "started": "2026-11-21 09:24"}]
    print_table(rows, tuple(rows[0]), may_drop=True)
    *table, last = capsys.readouterr().out.splitlines()
    assert last == "left out, the terminal is too narrow: state, started"
    assert table[-1].split() == ["x" * 20, "0.5000"] and len(table[-1]) <= 40


def test_operations_of_a_small_network_are_not_none() -> None:
    assert [show_mflop(flops) for flops in (34_048, 1_280, 71_420_000, 1_234_500_000)] == ["0.034", "0.0013", "71.4", "1,234.5"]
