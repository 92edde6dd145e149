"""A sent image is looked at in a process of its own, by firstlight's own predict."""

import asyncio
import base64
import io
import os
import signal
import struct
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image

import firstlight as fl
from firstlight.dashboard import predict as predict_module
from firstlight.dashboard.predict import Predictor
from firstlight.errors import DataError, FirstlightError

T = TypeVar("T")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return fl.train("quickstart", "model=linear", "train.epochs=2", "train.test_at_end=false", name="first", runs_dir=folder).path


@pytest.fixture(scope="module")
def with_predictor() -> Callable[[Callable[[Predictor], Awaitable[T]]], T]:
    """Return what carries out a coroutine with a predictor, and ends its process."""

    def carry_out(ask: Callable[[Predictor], Awaitable[T]]) -> T:
        async def together() -> T:
            predictor = Predictor()
            try:
                return await ask(predictor)
            finally:
                predictor.close()

        return asyncio.run(together())

    return carry_out


def png(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it has many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


WHOLE = png(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
REFUSED = {
    "no image": (b"hello", "no PNG or JPEG"),
    "a PNG that is cut off": (WHOLE[:-30], "the image: "),
    "nonsense behind a PNG's head": (b"\x89PNG\r\n\x1a\n" + b"x" * 100, "no PNG or JPEG"),
    "another format": (png(np.zeros((8, 8), np.uint8), "BMP"), "no PNG or JPEG"),
    "too many pixels": (bomb(4001, 1000), "4,001 x 1,000 pixels, more than 4 million"),
    "a program": (b"#!/bin/sh\nexit 1\n", "no PNG or JPEG"),
}


def test_images_are_answered_and_all_else_is_refused(run: Path, tmp_path: Path, with_predictor: Callable[..., None]) -> None:
    """Issue 8, fault 52: class bars of a dropped image are what `firstlight predict` says, to 1e-6; what the network saw comes with them.

    What is no image gets one line, with no path of ours in it, and the process lives.
    """
    images = {"a.png": WHOLE, "b.jpg": png(np.random.default_rng(0).integers(0, 256, (60, 40, 3), np.uint8), "JPEG")}

    async def ask(predictor: Predictor) -> None:
        for name, content in images.items():
            (tmp_path / name).write_bytes(content)
            expected = fl.predict(run, [tmp_path / name])
            found = await predictor.ask(run, content)
            assert found["class_names"] == list(expected.class_names)
            np.testing.assert_allclose(found["probabilities"], expected.probabilities[0], atol=1e-6)
            seen = np.frombuffer(base64.b64decode(found["seen"]["pixels"]), np.uint8)
            assert len(seen) == 64 and (found["seen"]["height"], found["seen"]["width"], found["seen"]["channels"]) == (8, 8, 1)
            if name == "a.png":
                np.testing.assert_array_equal(seen, np.arange(64) * 4)

        for content, why in REFUSED.values():
            with pytest.raises(DataError) as caught:
                await predictor.ask(run, content)
            assert why in str(caught.value) and "\n" not in str(caught.value) and "/" not in str(caught.value)
        assert len((await predictor.ask(run, WHOLE))["probabilities"]) == 10
        with pytest.raises(FirstlightError, match="no run at"):
            await predictor.ask(run.parent / "none", WHOLE)

    with_predictor(ask)


def test_a_process_that_died_is_replaced(run: Path, with_predictor: Callable[..., None]) -> None:
    """Fault 52: killed between two questions or during one, the page hears of it, and asks again with success."""

    async def ask(predictor: Predictor) -> None:
        await predictor.ask(run, WHOLE)
        child = predictor._child
        assert child is not None
        os.kill(child._process.pid, signal.SIGSTOP)  # so that it dies with the question in its hands
        asking = asyncio.ensure_future(predictor.ask(run, WHOLE))
        await asyncio.sleep(0.2)
        os.kill(child._process.pid, signal.SIGKILL)
        with pytest.raises(Exception, match="the process that looks at images died"):
            await asking
        assert len((await predictor.ask(run, WHOLE))["probabilities"]) == 10

    with_predictor(ask)


def test_one_that_takes_too_long_is_ended(run: Path, with_predictor: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 52: a stopped process stands for a network that never ends; too many questions at once are turned away."""

    async def ask(predictor: Predictor) -> None:
        await predictor.ask(run, WHOLE)
        child = predictor._child
        assert child is not None
        os.kill(child._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(predict_module, "SECONDS", 0.3)
        asking = [asyncio.ensure_future(predictor.ask(run, WHOLE)) for _ in range(6)]
        await asyncio.sleep(0)
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert [getattr(found[place], "detail", "").partition(";")[0] for place in (0, 4, 5)] == [
            "no answer within 0.3 seconds", "too many images at once", "too many images at once",
        ]  # fmt: skip
        assert {getattr(found[place], "status_code", None) for place in (0, 4, 5)} == {503}
        assert child._process.poll() is not None
        monkeypatch.undo()
        assert len((await predictor.ask(run, WHOLE))["probabilities"]) == 10

    with_predictor(ask)
