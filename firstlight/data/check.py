"""A full check of a folder or archive of images: every image decoded to its last pixel, every class looked at."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from firstlight.data.archive import Archive, open_archive
from firstlight.data.decode import decode_images
from firstlight.data.layout import Layout, find_layout
from firstlight.errors import DataError
from firstlight.files import sha256

Findings = list[tuple[str, str]]
"""(name inside the folder or archive, what is wrong with it)."""


def check_images(path: Path, *, one_size: bool = True, progress: Callable[[int, int], None] | None = None) -> Findings:
    """Return every image that does not decode, is in both parts, or (`one_size`) differs in size, and every class without test images.

    Decodes fully: Pillow's verify() passes most truncated JPEGs. Reads the test part too, but shows nothing of it.
    progress: called with the images done and the images there are.
    Raises DataError where the path is no folder or archive of class folders at all.
    """
    archive = open_archive(path)
    layout = find_layout(archive, 0.0)
    names = [name for name, _ in layout.train + layout.test]
    hashes: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    findings: Findings = []
    for done, (name, pixels) in enumerate(decode_images(archive.read(names), grey=False, image_size=None), 1):
        if isinstance(pixels, DataError):
            findings.append((name, str(pixels)))
        else:
            shapes[name] = pixels.shape
            hashes[name] = sha256(pixels.tobytes())
        if progress:
            progress(done, len(names))
    return findings + (_odd_sizes(shapes) if one_size else []) + _odd_classes(layout, archive) + _in_both_parts(layout, hashes)


def _odd_sizes(shapes: dict[str, tuple[int, ...]]) -> Findings:
    if len(set(shapes.values())) < 2:
        return []
    (height, width, _), most = Counter(shapes.values()).most_common(1)[0]
    odd = [name for name, shape in shapes.items() if shape[:2] != (height, width)]
    height_odd, width_odd, _ = shapes[odd[0]]
    message = f"{width_odd} x {height_odd} pixels where {most:,} images have {width} x {height} ({len(odd):,} such images)"
    if most <= len(odd):  # no size is the usual one
        message = f"{width_odd} x {height_odd} pixels, one of {len(set(shapes.values())):,} sizes among {len(shapes):,} images"
    return [(odd[0], f"{message}; data.image_size=64 resizes all")]


def _odd_classes(layout: Layout, archive: Archive) -> Findings:
    findings = []
    if len(layout.class_names) < 2:
        findings.append((str(archive.path), f"only one class, {layout.class_names[0]!r}; a classifier needs two"))
    tested = {label for _, label in layout.test}
    if tested:
        findings += [
            (name, "has training images and no test images") for label, name in enumerate(layout.class_names) if label not in tested
        ]
    return findings


def _in_both_parts(layout: Layout, hashes: dict[str, str]) -> Findings:
    first = {hashes[name]: name for name, _ in layout.train if name in hashes}
    twins = [(name, first[hashes[name]]) for name, _ in layout.test if hashes.get(name) in first]
    return [(name, f"the same pixels as {twin}, which is a training image") for name, twin in twins]
