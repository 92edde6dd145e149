"""The registry of data sets, the downloads, and the folders they lie in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from firstlight.config.kinds import settings_of
from firstlight.config.schema import Kind
from firstlight.data.build import DOWNLOADS, SOURCES, load_part
from firstlight.data.fetch import install_local
from firstlight.data.places import data_dir_of, waiting_lock
from firstlight.errors import ConfigError, StorageError


def test_load_part_by_name():
    """B7, D2: the name of a config picks the source."""
    assert len(load_part(Kind("digits"), "test", Path())) == 359
    with pytest.raises(ConfigError, match="'mnits' is no data set; did you mean 'mnist'"):
        load_part(Kind("mnits"), "train", Path())


def test_settings_are_the_keyword_only_parameters():
    assert {name for name, source in SOURCES.items() if settings_of(source)} == {
        "folder",
        "hdf5",
        "medium_imagenet",
        "webdataset",
        "parquet",
    }
    assert set(settings_of(SOURCES["folder"])) == {"path", "test_fraction", "image_size", "bad_images"}
    assert set(DOWNLOADS) <= set(SOURCES)


def test_pinned_digests_are_those_of_mnist(shared_data: Path, tmp_path: Path):
    installed = install_local(DOWNLOADS["mnist"], shared_data / "MNIST" / "raw", tmp_path)
    assert [path.parent for path in installed] == [tmp_path / "MNIST" / "raw"] * 4


def test_the_folder_of_data(monkeypatch: pytest.MonkeyPatch):
    """A9: what is given, the environment variable, else the cache folder; `~` means home in each."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("FIRSTLIGHT_DATA", "~/data")
    assert (data_dir_of("~/here"), data_dir_of()) == (Path("/home/me/here"), Path("/home/me/data"))
    monkeypatch.delenv("FIRSTLIGHT_DATA")
    monkeypatch.setenv("FIRSTLIGHT_CACHE", "/cache")
    assert data_dir_of() == Path("/cache/data")


def test_a_second_process_waits_and_gives_up_with_one_line(tmp_path: Path):
    """FAULTS 43."""
    code = "import sys, pathlib, firstlight.files as f\nwith f.Lock(pathlib.Path(sys.argv[1]), 'x'): print('held', flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path / ".x.lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(Path.cwd())}
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match="another process has been preparing"), waiting_lock(tmp_path, "x", wait_seconds=0.1):
            pass
        holder.communicate(b"\n")
    with waiting_lock(tmp_path, "x", wait_seconds=0):
        pass
