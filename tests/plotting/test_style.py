"""Colours: told apart by everybody, and dark enough for white paper."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from firstlight.files import write_figure
from firstlight.plotting.balance import plot_class_balance
from firstlight.plotting.curves import plot_curves
from firstlight.plotting.images import plot_class_bars, plot_predictions
from firstlight.plotting.style import PALETTE, RIGHT, WRONG, new_figure, set_title, shades, shorten
from firstlight.plotting.uncertainty import plot_image_uncertainty
from tests.plotting.conftest import texts

EYES = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
"""What reaches the eye of linear sRGB, at full severity (Machado, Oliveira and Fernandes 2009, table 1)."""
SRGB_TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
WHITE = np.array([0.95047, 1.0, 1.08883])
LEAST_DISTANCE = 15
"""In CIE Lab 1976; a difference of 2.3 is just seen (Mahy et al. 1994) side by side, and thin lines apart need several times that."""
LEAST_CONTRAST = 3
"""Of graphics and large text on their ground (WCAG 2.1, 1.4.11)."""


def linear(color: str) -> NDArray[np.float64]:
    """Linear sRGB of a colour such as #0072b2."""
    values = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE Lab of linear sRGB."""
    xyz = SRGB_TO_XYZ @ rgb.clip(0, 1) / WHITE
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(color: str) -> float:
    """Contrast of a colour to white by WCAG 2.1."""
    return 1.05 / (float(SRGB_TO_XYZ[1] @ linear(color)) + 0.05)


def test_lab_of_known_colours() -> None:
    np.testing.assert_allclose(lab(linear("#ffffff")), [100, 0, 0], atol=0.02)
    np.testing.assert_allclose(lab(linear("#ff0000")), [53.24, 80.09, 67.20], atol=0.02)
    assert contrast("#000000") == pytest.approx(21, abs=0.01) and contrast("#56b4e9") < LEAST_CONTRAST


@pytest.mark.parametrize("eyes", EYES)
def test_every_pair_of_the_palette_can_be_told_apart(eyes: str) -> None:
    """Issue 6: colours that survive colour blindness."""
    seen = {color: lab(EYES[eyes] @ linear(color)) for color in PALETTE}
    near = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(PALETTE, 2)}
    assert len(near) == 21 and min(near.values()) >= LEAST_DISTANCE, min(near, key=lambda pair: near[pair])


def test_a_red_and_a_green_of_one_lightness_would_not_pass() -> None:
    """The test above sees what a deuteranope does not."""
    red, green = ("#c8553d", "#7d7f2f")
    plain = np.linalg.norm(lab(linear(red)) - lab(linear(green)))
    deuteranope = np.linalg.norm(lab(EYES["deuteranopia"] @ linear(red)) - lab(EYES["deuteranopia"] @ linear(green)))
    assert plain > 3 * LEAST_DISTANCE and deuteranope < LEAST_DISTANCE


@pytest.mark.parametrize("color", [*PALETTE, RIGHT, WRONG, "#555555"])
def test_lines_and_text_stand_out_from_white(color: str) -> None:
    assert contrast(color) >= LEAST_CONTRAST


def test_right_and_wrong_differ_in_the_eyes_of_everybody() -> None:
    for matrix in EYES.values():
        assert np.linalg.norm(lab(matrix @ linear(RIGHT)) - lab(matrix @ linear(WRONG))) > 50


def test_shades_are_dark_enough_for_white_paper() -> None:
    mapped = shades([0.001, 1.0], log=True)
    colors = mapped.to_rgba(np.array([0.001, 0.03, 1.0]))[:, :3]
    luminance = colors @ [0.2126, 0.7152, 0.0722]
    assert list(luminance) == sorted(luminance)
    assert luminance.max() < 0.8


def test_a_title_stays_inside_its_figure() -> None:
    figure, _ = new_figure(width=5.75, height=3)
    set_title(figure, "m: 5,494 of 6,000 val images right (91.57%); 10 of 127 wrong val images of class 4,9, worst first")
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()  # type: ignore[attr-defined]
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_long_names_are_cut() -> None:
    assert [shorten("automobile", 10), shorten("automobile", 6)] == ["automobile", "autom…"]


ODD_NAMES = (r"$\frac$", "costs $5 or $6", "_hidden", "long " * 30)


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    """Fault 50: a class or a run may be called what matplotlib takes for a formula, or leaves out of legends, or has no room for."""
    pixels, rows = np.zeros((4, 4), np.uint8), [{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0}]
    sheet = plot_predictions([pixels] * 4, ODD_NAMES, ODD_NAMES[::-1], [0.5] * 4, title=ODD_NAMES[0])
    bars = plot_class_bars(pixels, ODD_NAMES, [0.1, 0.2, 0.3, 0.4], title=ODD_NAMES[1], label=ODD_NAMES[3])
    curves = plot_curves(dict.fromkeys(ODD_NAMES[:3], rows))
    votes = plot_image_uncertainty(pixels, ODD_NAMES, np.array([0, 1, 5, 4]), np.full((10, 4), 0.25), label=None, title="votes")
    for figure in (sheet, bars, curves, votes, plot_class_balance(ODD_NAMES, [1, 2, 3, 4])):
        assert write_figure(tmp_path / "picture.svg", figure).stat().st_size > 1000
    legend = [text.get_text().strip() for text in curves.legends[0].get_texts()]
    assert legend == [r"\$\frac\$", r"costs \$5 or \$6", "_hidden"]
    assert any(text.startswith("long long") and text.endswith("… (true)") for text in texts(bars))
    assert " _hidden: median 0.25" in texts(votes)
