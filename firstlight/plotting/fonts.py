"""Characters that the default font lacks, such as Chinese: another installed font draws them, and where none has them one line says so.

Nothing is looked for until a text has such a character. Reading order: readable, _lent, _find, told.
"""

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_SPECIAL = re.compile(r"(cm[a-z]+10|STIXNonUni|STIXSiz|LastResort)")
"""Fonts of matplotlib that have other characters in the places of these, or nothing but boxes."""
_PLAIN_LAST = re.compile(r"bold|italic|oblique|light|thin|black|mono|serif", re.IGNORECASE)
"""Faces that are taken where no plain one has a character."""
_SHOWN = 6
"""Characters, and texts, that are named."""

_families: dict[str, str | None] = {}
"""The font that has a character, None where none has; kept as long as the process lives."""
_boxes: dict[str, set[str]] = {}
"""Characters that became boxes since this was last told, with the texts that have each."""
_collecting = False


@contextmanager
def told(lines: list[str]) -> Iterator[None]:
    """Collect what no font could draw in the block; behind it the line that says so is put to `lines`, if there is one."""
    global _collecting
    before, _collecting = _collecting, True
    try:
        yield
    finally:
        _collecting = before
        lines += _take_line()


@contextmanager
def readable(figure: "Figure") -> Iterator[None]:
    """Let a figure be drawn in the block with the fonts that its texts need; matplotlib's own warnings of boxes are kept back.

    Outside of `told` what no font can draw is a UserWarning.
    """
    from matplotlib.text import Text

    lost: dict[str, set[str]] = {}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and not text.get_text().isascii():
            for character in _lent(text):
                lost.setdefault(character, set()).add(text.get_text())
    if not lost:
        yield
        return
    new = lost.keys() - _boxes.keys()
    for character, texts in lost.items():
        _boxes.setdefault(character, set()).update(texts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        yield
    if new and not _collecting:
        for line in _take_line():
            warnings.warn(line, stacklevel=2)


def _lent(text: "Text") -> list[str]:
    """Give a text the fonts that have what its own lacks; return the characters that none has."""
    missing = {character for character in text.get_text() if not character.isascii() and not _has(text.get_fontfamily(), character)}
    if unknown := missing - _families.keys():
        _families.update(_find(unknown))
    families = sorted({family for character in missing if (family := _families[character])})
    if families:
        text.set_fontfamily([*text.get_fontfamily(), *families])
    return [character for character in text.get_text() if character in missing and _families[character] is None]


def _has(families: Iterable[str], character: str) -> bool:
    return any(ord(character) in _characters(path) for family in families if (path := _path(family)))


def _find(characters: set[str]) -> dict[str, str | None]:
    """Return a family for each character: one for all, where there is such a font, else as few as a greedy choice needs."""
    from matplotlib.font_manager import findSystemFonts, fontManager, get_font

    found: dict[str, str | None] = dict.fromkeys(characters)
    known = {str(entry.fname): entry.name for entry in fontManager.ttflist}
    # what was installed since matplotlib wrote its list of fonts is on disk, and not in that list
    paths = [path for path in {*known, *findSystemFonts()} if not _SPECIAL.match(Path(path).name)]
    having: dict[str, set[str]] = {}
    for path in sorted(paths, key=lambda path: (bool(_PLAIN_LAST.search(Path(path).name)), Path(path).name, path)):
        if some := {character for character in characters if ord(character) in _characters(path)}:
            having[path] = some
            if some == characters:
                break
    for path, _ in sorted(having.items(), key=lambda pair: -len(pair[1])):
        left = {character for character, family in found.items() if family is None}
        if not left & having[path]:
            continue
        if path not in known:
            fontManager.addfont(path)
            _path.cache_clear()
        family = known.get(path) or get_font(path).family_name
        found |= {character: family for character in left if _has([family], character)}
    return found


@lru_cache(maxsize=64)
def _path(family: str) -> str | None:
    """Return the file that matplotlib draws a family with."""
    from matplotlib.font_manager import FontProperties, fontManager

    try:
        return str(fontManager.findfont(FontProperties(family=[family]), fallback_to_default=False))
    except ValueError:  # there is none
        return None


@lru_cache(maxsize=1024)
def _characters(path: str) -> frozenset[int]:
    """Return the characters of a font file; none where it cannot be drawn with, as coloured emoji cannot."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _take_line() -> list[str]:
    """Return what is said of the boxes, if there are any, and forget them."""
    if not _boxes:
        return []
    characters = sorted(_boxes)
    whole = {" ".join(text.split()) for text in set().union(*_boxes.values())}
    texts = [repr(text) for text in sorted(whole, key=lambda text: (len(text), text))]  # a class's name is shorter than a title with it
    font = "Noto Emoji" if all(ord(character) >= 0x2600 and not _is_east_asian(character) for character in characters) else "Noto Sans CJK"
    _boxes.clear()
    shown, named = ", ".join(characters[:_SHOWN]), ", ".join(texts[:_SHOWN])
    more, others = (f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else "" for some in (characters, texts))
    return [
        f"no font on this machine draws {shown}{more}, which are boxes in the pictures (in {named}{others}); "
        f"install a font that has them, such as {font}, and give the command again"
    ]


def _is_east_asian(character: str) -> bool:
    return 0x2E80 <= ord(character) <= 0xFFEF or 0x20000 <= ord(character) <= 0x3FFFF
