"""A figure whose texts are drawn with the fonts that they need."""

from typing import Any

from matplotlib.figure import Figure

from firstlight.plotting.fonts import readable


class ReadableFigure(Figure):
    """A Figure of matplotlib in which Chinese or Korean names are no boxes, where a font on this machine has them."""

    def draw(self, renderer: Any) -> None:
        """Draw as Figure does."""
        with readable(self):
            super().draw(renderer)
