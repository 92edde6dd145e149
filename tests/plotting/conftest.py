"""What is written in a figure."""

from typing import Any


def texts(figure: Any) -> list[str]:
    """Return all visible text of a drawn figure."""
    from matplotlib.text import Text

    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
