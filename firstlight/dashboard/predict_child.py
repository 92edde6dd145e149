"""The process that looks at images which a browser sent: `python -m firstlight.dashboard.predict_child`, under limits of its own.

It answers each line of JSON, `{"run": path, "num_bytes": n}` and n bytes behind it, with a line of JSON.
"""

import base64
import json
import os
import sys
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from firstlight.engine.children import answer, read_asked
from firstlight.errors import DataError, FirstlightError

FORMATS = {"PNG": ".png", "JPEG": ".jpg"}
MAX_PIXELS = 4_000_000
MEMORY_BYTES = 8 * 2**30
"""Memory that a network may take here."""
FILE_BYTES = 2**22
"""Size of a file that this process may write; its only one is the image."""


def main() -> None:
    """Answer until nothing more is asked."""
    read_asked()
    _limit()
    from firstlight.engine import predict  # noqa: F401 (what takes a second or two is done before anyone waits for it)

    answer({"ready": True})
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        content = sys.stdin.buffer.read(asked["num_bytes"])
        try:
            answer(look(Path(asked["run"]), content))
        except FirstlightError as error:
            answer({"error": (type(error).__name__, str(error))})


def look(run: Path, content: bytes) -> dict[str, Any]:
    """Return what a run says of an image: `class_names`, `probabilities`, and `seen`, the pixels that the network was given.

    seen: height, width, channels, and the bytes [H, W, C] in base 64. Raises FirstlightError.
    """
    suffix = check_image(content)
    from firstlight.data.image_files import read_images
    from firstlight.engine.predict import predict
    from firstlight.tracking.run import load_run

    with NamedTemporaryFile(suffix=suffix, prefix="firstlight-") as image:
        image.write(content)
        image.flush()
        try:
            found = predict(run, [image.name])
            data = load_run(run).info["data"]
            pixels = (
                read_images([Path(image.name)], tuple(data["image_shape"]), data["class_names"]).images[0].permute(1, 2, 0).contiguous()
            )
        except FirstlightError as error:
            raise type(error)(str(error).replace(image.name, "the image")) from error
    height, width, channels = pixels.shape
    seen = base64.b64encode(pixels.numpy().tobytes()).decode()
    return {
        "class_names": list(found.class_names),
        "probabilities": [float(value) for value in found.probabilities[0]],
        "seen": {"height": height, "width": width, "channels": channels, "pixels": seen},
    }


def check_image(content: bytes) -> str:
    """Return the suffix of an image's format. Raises DataError for what is no PNG or JPEG, or has too many pixels; nothing is decoded."""
    from PIL import Image

    try:
        with Image.open(BytesIO(content), formats=list(FORMATS)) as image:
            (width, height), kind = image.size, image.format
    except Exception as error:  # Pillow raises a dozen kinds on damaged bytes
        raise DataError("this is no PNG or JPEG image; choose another file") from error
    if width * height > MAX_PIXELS:
        raise DataError(f"the image has {width:,} x {height:,} pixels, more than {MAX_PIXELS / 1e6:g} million; send a smaller one")
    return FORMATS[str(kind)]


def _limit() -> None:
    """Bound what this process may take, where the system can, and let others go first."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        os.nice(5)
        for what, most in ((resource.RLIMIT_DATA, MEMORY_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES), (resource.RLIMIT_CORE, 0)):
            hard = resource.getrlimit(what)[1]
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    main()
