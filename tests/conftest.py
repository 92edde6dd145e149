"""Fixtures that many tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same every time", derandomize=True, database=None)
settings.load_profile("same every time")  # what a soak asks for draws anew


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with MNIST and the JPEG copy of CIFAR-10; a test that needs it is skipped where there is none."""
    folder = os.environ.get("FIRSTLIGHT_DATA")
    if not folder or not (Path(folder) / "MNIST").is_dir():
        pytest.skip("needs FIRSTLIGHT_DATA with MNIST/ and cifar10-jpeg.tar.gz")
    return Path(folder).resolve()
