"""Colours."""

import numpy as np

from firstlight.plotting.style import shades


def test_shades_are_dark_enough_for_white_paper() -> None:
    mapped = shades([0.001, 1.0], log=True)
    colors = mapped.to_rgba(np.array([0.001, 0.03, 1.0]))[:, :3]
    luminance = colors @ [0.2126, 0.7152, 0.0722]
    assert list(luminance) == sorted(luminance)
    assert luminance.max() < 0.8
