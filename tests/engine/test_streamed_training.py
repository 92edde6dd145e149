"""A training whose images stay in their file: the record, exact resume, prediction of the unlabelled part, course-style configs."""

from pathlib import Path

import pytest

import firstlight as fl
from firstlight.data.generate import generate_hdf5
from firstlight.engine.predict import predict
from firstlight.errors import ConfigError, DataError, InterruptedRunError
from firstlight.tracking.console import Console
from tests.data.made_shards import make_parquets, make_tars
from tests.engine.test_resume import StopAfter, checkpoint_hashes

SETTINGS = ["data=hdf5", "model={name: small_cnn, widths: [4, 8]}", "train.batch_size=16", "device.threads=1", "device.precision=float32"]
STREAMED = [*SETTINGS, "data.buffer_mib=1", "augment.flip=true", "augment.crop=2", "train.test_at_end=false"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 images of 24 pixels: with a buffer of 1 MiB there are three windows."""
    path = tmp_path_factory.mktemp("made") / "made.h5"
    return generate_hdf5(path, lambda what, done, total: None, num_images=600, size=24, num_classes=10)


def train(
    made: Path, folder: Path, *settings: str, name: str, epochs: int = 1, stream: str = "on", console: Console | None = None
) -> fl.Run:
    words = [*STREAMED, f"data.path={made}", f"train.epochs={epochs}", f"data.stream={stream}", *settings]
    return fl.train("quickstart", *words, name=name, runs_dir=folder, console=console or Console(quiet=True))


def test_a_streamed_training_is_recorded_and_goes_on_to_the_same_bits(made: Path, tmp_path: Path) -> None:
    """D8, F3: validated on its own part; stopped inside an epoch and resumed there, it ends with the bits of one that was not."""
    whole = train(made, tmp_path, name="whole", epochs=2)
    record = whole.info["data"]
    assert (record["streamed"], record["own_validation"], record["num_train"], record["num_val"]) == (True, True, 600, 60)
    assert "made.h5 (600 training images)" in record["source"]
    with pytest.raises(InterruptedRunError):
        train(made, tmp_path, "train.log_every=5", name="cut", epochs=2, console=StopAfter(1))
    resumed = fl.resume(tmp_path / "cut", console=Console(quiet=True))
    assert checkpoint_hashes(resumed) == checkpoint_hashes(whole)
    assert [row["loss"] for row in resumed.steps] == [row["loss"] for row in whole.steps]


def test_a_resident_training_has_the_same_record(made: Path, tmp_path: Path) -> None:
    """The same statistics and the same content hash, wherever the pixels are."""
    streamed = train(made, tmp_path, name="streamed").info["data"]
    resident = train(made, tmp_path, name="resident", stream="off").info["data"]
    assert {key: value for key, value in streamed.items() if resident[key] != value} == {"streamed": True}


def test_unlabelled_images_are_predicted_and_never_evaluated(made: Path, tmp_path: Path) -> None:
    """D8, D11."""
    run = train(made, tmp_path, name="run")
    rows = predict(run.path)
    assert len(rows) == 60 and rows[0]["image"] == "test[0]"
    with pytest.raises(DataError, match="the test images have no labels"):
        fl.evaluate(run.path, split="test")
    assert fl.evaluate(run.path)["num_images"] == 60


def test_a_course_config_for_medium_imagenet(made: Path, tmp_path: Path) -> None:
    """D1, D8: upper case, as the course writes it; the images are brought to its 32 pixels on the way."""
    (tmp_path / "base.yaml").write_text("MODEL: {NAME: lenet}\nDATA: {PIN_MEMORY: true}\n")
    (tmp_path / "course.yaml").write_text(
        "BASE: [base.yaml]\n"
        f"DATA: {{BATCH_SIZE: 32, DATASET: medium_imagenet, MEDIUM_IMAGENET_PATH: {made}, IMG_SIZE: 32, NUM_WORKERS: 32}}\n"
        "MODEL: {NUM_CLASSES: 10}\nTRAIN: {EPOCHS: 1, WARMUP_EPOCHS: 0}\nOUTPUT: output/medium\nSAVE_FREQ: 1\nPRINT_FREQ: 5\n"
    )
    run = fl.train(tmp_path / "course.yaml", "data.stream=on", runs_dir=tmp_path, name="run", console=Console(quiet=True))
    assert run.info["data"]["image_shape"] == [3, 32, 32] and run.state == "finished"


def test_a_graph_and_a_stream_do_not_go_together(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"device\.graph"):
        train(made, tmp_path, "device.graph=true", name="graph")


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_a_training_on_shards_goes_on_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    """Issue 7, F3: stopped inside an epoch and resumed there; validated on its own part; the threads that decode change nothing."""
    folder = (make_tars if kind == "webdataset" else make_parquets)(tmp_path / kind)
    words = [*(word for word in STREAMED if word != "data=hdf5"), f"data={kind}", f"data.path={folder}", "data.stream=on", "train.epochs=2"]
    whole = fl.train("quickstart", *words, name="whole", runs_dir=tmp_path, console=Console(quiet=True))
    record = whole.info["data"]
    assert (record["streamed"], record["own_validation"], record["num_train"], record["num_val"]) == (True, True, 300, 60)
    with pytest.raises(InterruptedRunError):
        fl.train("quickstart", *words, "train.log_every=5", name="cut", runs_dir=tmp_path, console=StopAfter(1))
    resumed = fl.resume(tmp_path / "cut", console=Console(quiet=True))
    assert checkpoint_hashes(resumed) == checkpoint_hashes(whole)
    assert [row["loss"] for row in resumed.steps] == [row["loss"] for row in whole.steps]
