"""Names in pictures that the default font cannot draw: another font on the machine does, or one line says that none can."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.text import Text
from PIL import Image

from firstlight.files import figure_bytes
from firstlight.plotting import fonts
from firstlight.plotting.balance import plot_class_balance

ONLY_STIX = "\N{LATIN SMALL LETTER D WITH PALATAL HOOK}"
"""In STIXGeneral, which comes with matplotlib, and in no DejaVu Sans."""
CAT, DOG = "\N{CJK UNIFIED IDEOGRAPH-732B}", "\N{CJK UNIFIED IDEOGRAPH-72AC}"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier test found is forgotten."""
    monkeypatch.setattr(fonts, "_families", {})
    monkeypatch.setattr(fonts, "_boxes", {})


def has(family: str, character: str) -> bool:
    return ord(character) in get_font(fontManager.findfont(FontProperties(family=[family]))).get_charmap()


def needs_no_chinese_font() -> None:
    if fonts._find({CAT})[CAT] is not None:
        pytest.skip("this machine has a Chinese font")


def test_another_font_draws_what_the_default_one_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture is the one with this font named by hand, and not the one with boxes, as PNG and as SVG; no warning is left."""
    assert not has("DejaVu Sans", ONLY_STIX) and has("STIXGeneral", ONLY_STIX)
    figure, by_hand, boxes = (plot_class_balance([ONLY_STIX, "dog"], [1, 2]) for _ in range(3))
    found = [pixels(figure), shapes(figure)]
    family = fonts._families[ONLY_STIX]
    assert family is not None and fonts._take_line() == []
    for text in by_hand.findobj(Text):
        if text.get_text() == ONLY_STIX:
            text.set_fontfamily(["sans-serif", family])
    assert found == [pixels(by_hand), shapes(by_hand)]
    monkeypatch.setattr(fonts, "_families", {ONLY_STIX: None})
    with pytest.warns(UserWarning, match="no font on this machine draws"):
        assert found[0] != pixels(boxes) and found[1] != shapes(boxes)


def pixels(figure: Figure) -> list[int]:
    return np.asarray(Image.open(BytesIO(figure_bytes(figure, "png")))).ravel().tolist()


def shapes(figure: Figure) -> list[str]:
    """The outlines of an SVG, without the names that each file gives them anew."""
    return re.findall(r' d="([^"]+)"', figure_bytes(figure, "svg").decode())


def test_a_font_is_looked_for_once_and_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    find = fonts._find
    monkeypatch.setattr(fonts, "_find", lambda characters: asked.append(characters) or find(characters))
    figure_bytes(plot_class_balance(["cat", "собака", "\N{GREEK SMALL LETTER ALPHA}"], [1, 2, 3]), "png")
    assert asked == []
    for _ in range(2):
        figure_bytes(plot_class_balance([ONLY_STIX], [1]), "png")
    assert asked == [{ONLY_STIX}]


def test_a_font_that_matplotlib_has_not_listed_yet_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib keeps a list of the fonts that were there when it first ran; what was installed later is not in it."""
    installed = shutil.copy(fontManager.findfont("STIXGeneral"), tmp_path / "Later.ttf")
    listed = [entry for entry in fontManager.ttflist if ONLY_STIX not in map(chr, fonts._characters(entry.fname))]
    monkeypatch.setattr(fontManager, "ttflist", listed)
    fontManager._findfont_cached.cache_clear()  # type: ignore[attr-defined]
    fonts._path.cache_clear()
    assert fonts._find({ONLY_STIX}) == {ONLY_STIX: None}
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(installed)])
    assert fonts._find({ONLY_STIX}) == {ONLY_STIX: "STIXGeneral"}
    for found in (fontManager._findfont_cached, fonts._path):  # type: ignore[attr-defined]
        found.cache_clear()  # what was found in the shorter list is not for the tests behind this one


def test_outside_of_a_command_what_no_font_draws_is_one_warning() -> None:
    needs_no_chinese_font()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for kind in ("png", "svg"):
            figure_bytes(plot_class_balance([CAT, f"{CAT} 2"], [1, 2]), kind)
    assert len({str(warning.message) for warning in seen}) == 1
    assert str(seen[0].message).startswith(f"no font on this machine draws {CAT}, which are boxes in the pictures (in '{CAT}', '{CAT} 2')")


def test_a_command_says_it_in_one_line(tmp_path: Path) -> None:
    """Folders with Chinese names, looked at in a new process: one line on stderr, and nothing of matplotlib's."""
    needs_no_chinese_font()
    rng = np.random.default_rng(0)
    for name in (CAT, DOG):
        (tmp_path / "pets" / f"{name}x").mkdir(parents=True)
        for number in range(12):
            Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).save(tmp_path / "pets" / f"{name}x" / f"{number}.png")
    words = [sys.executable, "-m", "firstlight", "inspect", "data", "pets", "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    notes = [line for line in done.stderr.splitlines() if "font" in line]
    begins = f"note: no font on this machine draws {DOG}, {CAT}, which are boxes in the pictures (in '{DOG}x', '{CAT}x'"
    assert len(notes) == 1 and notes[0].startswith(begins)
    assert "install a font that has them, such as Noto Sans CJK" in notes[0] and "Glyph" not in done.stderr
    assert json.loads(done.stdout)["num_images"] > 0
