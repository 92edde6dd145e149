"""An exported file that is asked for the classes of images; an ONNX file by onnxruntime alone: no torch, no run folder."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import CheckpointError, ConfigError, DataError
from firstlight.export.description import INPUT, KEY, OUTPUT, Description, read_description

SHIPPED_READER = Path(__file__).with_name("mnist_reader.onnx")
"""A reader of digits, uint8 [N, 1, 28, 28]: the shipped experiment mnist_reader, exported. README.md beside it says how it was made."""
MAX_BYTES = 2**31
"""No ONNX file is larger: protobuf holds no more."""
BATCH_SIZE = 100
"""Images that are asked about at once."""


class Exported:
    """A file that `firstlight export` wrote, ready to be asked. A kind of file says how it computes the logits of a batch (`_ask`)."""

    path: Path
    description: Description

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities."""
        return self.description.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images that it takes."""
        return self.description.image_shape

    def logits(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return the logits float32 [N, num_classes] of images [N, C, H, W]: uint8, or float32 in [0, 1] where the file takes such."""
        pixels = as_pixels(images, self.description)
        parts = [self._checked(pixels[first : first + BATCH_SIZE]) for first in range(0, len(pixels), BATCH_SIZE)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.class_names)), np.float32)

    def probabilities(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return the class probabilities float32 [N, num_classes] of images, as `logits` takes them."""
        return softmax(self.logits(images))

    def _checked(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        try:
            found = self._ask(pixels)
        except Exception as error:  # the runtimes have a dozen kinds, without a common base
            raise CheckpointError(f"{self.path} cannot be computed ({first_line(error)}); export the run again") from None
        if found.shape != (len(pixels), len(self.class_names)) or found.dtype != np.float32:
            raise CheckpointError(
                f"{self.path} returns {found.dtype} of shape {list(found.shape)}, not float32 logits, a row an image; export the run again"
            )
        return found

    def _ask(self, pixels: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError


class Reader(Exported):
    """An ONNX file by its path.

    content: what the file holds, where somebody has read it already; threads: CPU threads that it may use.
    Raises ConfigError where onnxruntime is missing, CheckpointError for a file that is none.
    """

    def __init__(self, path: str | Path, content: bytes | None = None, *, threads: int = 1) -> None:
        self.path = Path(path)
        self._session = _session(read_content(self.path, MAX_BYTES) if content is None else content, self.path, threads)
        try:
            text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path} is damaged in what it says of itself ({error.reason}); export the run again") from None
        self.description = read_description(text, self.path)
        _check_ends(self._session, self.description, self.path)

    def _ask(self, pixels: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = self._session.run([OUTPUT], {INPUT: pixels})[0]
        return found


def as_pixels(images: NDArray[Any], description: Description) -> NDArray[Any]:
    """Return images [N, C, H, W] in the dtype that a file takes: uint8 images also fit one for float32. Raises DataError."""
    if images.ndim != 4 or images.shape[1:] != description.image_shape:
        raise DataError(
            f"images have shape {list(images.shape)}; this file takes [N, {', '.join(map(str, description.image_shape))}]; resize"
        )
    if images.dtype == np.uint8:
        return images if description.pixels == "uint8" else images.astype(np.float32) / np.float32(255)
    if description.pixels == "uint8":
        raise DataError(f"images are {images.dtype}; this file takes uint8 pixels from 0 to 255; convert them")
    return images.astype(np.float32, copy=False)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities [N, K] of logits [N, K]."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: NDArray[np.float32] = exponentials / exponentials.sum(1, keepdims=True)
    return probabilities


def read_content(path: Path, most: int) -> bytes:
    """Return what a model file holds. Raises CheckpointError for one that cannot be read, or is larger than `most` bytes."""
    if not path.exists():
        raise CheckpointError(f"{path} is not there; name a file that `firstlight export` wrote")
    if not path.is_file():
        raise CheckpointError(f"{path} is a folder, a device or a pipe; name a file that `firstlight export` wrote")
    try:
        if path.stat().st_size > most:
            raise CheckpointError(f"{path} has {path.stat().st_size / 2**30:.1f} GiB, more than {most / 2**30:.0f}; take a smaller network")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); name a file that you may read") from None


def _session(content: bytes, where: Path, threads: int) -> Any:
    """Return onnxruntime's session for an ONNX file's content. Raises ConfigError where the package is missing, CheckpointError."""
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(f'{where} needs onnxruntime; pip install "firstlight[onnx]"') from None
    onnxruntime.set_default_logger_severity(4)  # it would write its own lines to stderr beside ours
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    try:  # from bytes: a file that names others beside itself is refused, and none of them is opened
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CheckpointError(f"{where} is no whole ONNX file ({first_line(error)}); export the run again") from None


def _check_ends(session: Any, description: Description, where: Path) -> None:
    """Raise CheckpointError where a graph does not take and return what its description says."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    kind = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[description.pixels]
    fits = [(item.name, item.type, list(item.shape[1:])) for item in inputs] == [(INPUT, kind, list(description.image_shape))]
    if not fits or [item.name for item in outputs] != [OUTPUT]:
        raise CheckpointError(f"{where}: its input or output is not what its description says; export the run again")


def first_line(error: Exception) -> str:
    """Return the first line of what an error of some library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
