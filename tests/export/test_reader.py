"""The reader of ONNX files: what is shipped, what is damaged, and what is foreign."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import firstlight as fl
from firstlight.config.describe import to_dict
from firstlight.engine.sources import completed
from firstlight.errors import CheckpointError, ConfigError, DataError
from firstlight.export.description import KEY, Description, read_description
from firstlight.export.predict import open_exported, predict_with_file
from firstlight.export.reader import SHIPPED_READER, Reader

DESCRIPTION = Description(class_names=("a", "b"), image_shape=(1, 2, 2), pixels="uint8", mean=(0.5,), std=(0.25,), about={"run": "r"})


def test_the_shipped_reader_reads_mnist(shared_data: Path) -> None:
    """E13: at least 99 % of MNIST's test digits; the README beside it says 0.9961."""
    digits = fl.load_data("mnist", "test", data_dir=shared_data)
    assert digits.labels is not None
    probabilities = Reader(SHIPPED_READER).probabilities(digits.images.numpy())
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    accuracy = float((probabilities.argmax(1) == digits.labels.numpy()).mean())
    assert accuracy == pytest.approx(0.9961, abs=2e-4)
    assert f"{accuracy:.3f}" in SHIPPED_READER.with_name("README.md").read_text(encoding="utf-8")


def test_the_shipped_reader_is_small_and_of_its_experiment() -> None:
    reader = Reader(SHIPPED_READER)
    assert SHIPPED_READER.stat().st_size < 400 * 1024
    assert (reader.image_shape, reader.class_names) == ((1, 28, 28), tuple("0123456789"))
    settings = json.loads(json.dumps(to_dict(fl.load_config("mnist_reader"))))
    assert json.loads(json.dumps(completed(reader.description.about["config"]))) == settings


def test_the_reader_needs_no_torch() -> None:
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from firstlight.export.reader import SHIPPED_READER, Reader
reader = Reader(SHIPPED_READER)
print(reader.probabilities(np.zeros((3, 1, 28, 28), np.uint8)).shape, reader.probabilities(np.zeros((0, 1, 28, 28), np.uint8)).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(3, 10) (0, 10)\n"


def test_one_image_is_answered_as_among_many() -> None:
    images = np.random.default_rng(0).integers(0, 256, (230, 1, 28, 28), dtype=np.uint8)
    reader = Reader(SHIPPED_READER)
    together = reader.probabilities(images)
    for place in (0, 99, 100, 229):
        np.testing.assert_allclose(reader.probabilities(images[place : place + 1])[0], together[place], atol=1e-6)


# Damaged and foreign files


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    """Fault 18 for exported files: cut off anywhere, or bytes changed; never another error, and never an answer of a wrong shape."""
    content = SHIPPED_READER.read_bytes()
    generator, path = np.random.default_rng(0), tmp_path / "damaged.onnx"
    images = np.zeros((2, 1, 28, 28), np.uint8)
    refused = 0
    for number in range(60):
        damaged = bytearray(content)
        if number < 20:
            damaged = damaged[: int(generator.integers(0, len(content)))]
        else:  # the structure lies at the ends, the weights between
            end = 4000
            places = generator.integers(0, end, 6) if number % 2 else len(content) - 1 - generator.integers(0, end, 6)
            damaged[int(places[0]) % len(content)] ^= 0xFF
            for place in places:
                damaged[int(place)] = int(generator.integers(0, 256))
        path.write_bytes(bytes(damaged))
        try:
            answers = Reader(path).probabilities(images)
        except CheckpointError as error:
            refused += 1
            assert str(path) in str(error) and ";" in str(error) and "\n" not in str(error)
        else:
            assert answers.shape == (2, 10)
    assert refused >= 25


def model(
    nodes: list[onnx.NodeProto], *, text: str | None, kind: int = TensorProto.UINT8, initializers: tuple[TensorProto, ...] = ()
) -> bytes:
    """Return an ONNX file that takes images [N, 1, 2, 2] and returns logits [N, 2]."""
    images = helper.make_tensor_value_info("images", kind, ["batch", 1, 2, 2])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [images], [logits], list(initializers))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if text is not None:
        entry = made.metadata_props.add()
        entry.key, entry.value = KEY, text
    return bytes(made.SerializeToString())


def simple(text: str | None, **options: int) -> bytes:
    """Return a graph whose logits are the sums of the two rows of an image."""
    nodes = [
        helper.make_node("Cast", ["images"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["values", "axes"], ["logits"], keepdims=0),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 3])
    return model(nodes, text=text, initializers=(axes,), **options)


def opened(tmp_path: Path, content: bytes) -> Reader:
    (tmp_path / "some.onnx").write_bytes(content)
    return Reader(tmp_path / "some.onnx")


def test_a_file_made_by_hand_is_asked(tmp_path: Path) -> None:
    reader = opened(tmp_path, simple(DESCRIPTION.to_json()))
    images = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    assert reader.logits(images).tolist() == [[1, 5], [9, 13]]
    assert reader.probabilities(images)[0] == pytest.approx([1 / (1 + np.exp(4)), 1 / (1 + np.exp(-4))])


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    """Issue 8: a model without class names."""
    for names in ([], None):
        whole = json.loads(DESCRIPTION.to_json()) | {"class_names": names}
        assert opened(tmp_path, simple(json.dumps(whole))).class_names == ("0", "1")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (simple(None), "does not say how images become its input; take a file that `firstlight export` wrote"),
        (simple("{"), "what it says of itself is damaged"),
        (simple(DESCRIPTION.to_json(), kind=TensorProto.FLOAT), "its input or output is not what its description says"),
        (simple(json.dumps(json.loads(DESCRIPTION.to_json()) | {"format": 2})), "has export format 2, this firstlight reads 1"),
        (b"", "is no whole ONNX file"),
        (b"\x80\x04K\x01.", "is no whole ONNX file"),
        (b"hello", "is no whole ONNX file"),
    ],
)
def test_foreign_files_are_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        opened(tmp_path, content)


def test_a_graph_that_asks_for_4_tib_is_refused(tmp_path: Path) -> None:
    """Fault 23, fault 26: a file of 300 bytes cannot take the memory of the machine."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1 << 40, 2])
    bomb = model([helper.make_node("ConstantOfShape", ["shape"], ["logits"])], text=DESCRIPTION.to_json(), initializers=(shape,))
    with pytest.raises(CheckpointError, match=r"some\.onnx (cannot be computed|is no whole ONNX file)"):
        opened(tmp_path, bomb).logits(np.zeros((1, 1, 2, 2), np.uint8))


def test_a_graph_cannot_read_other_files(tmp_path: Path) -> None:
    """Fault 23: weights outside of the file, by a path that leads out of its folder, are not opened."""
    (tmp_path / "secret").write_bytes(np.ones(2, np.float32).tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "secret", "offset": "0", "length": "8"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    content = model([helper.make_node("Identity", ["w"], ["logits"])], text=DESCRIPTION.to_json(), initializers=(tensor,))
    with pytest.raises(CheckpointError, match="is no whole ONNX file"):
        opened(tmp_path, content)


def test_onnxruntime_is_asked_for_by_name(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["onnxruntime"] = None
from firstlight.__main__ import main
main(["predict", {str(SHIPPED_READER)!r}, "a.png"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f'error: {SHIPPED_READER} needs onnxruntime; pip install "firstlight[onnx]"\n'


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("nothing.onnx", CheckpointError, "is not there, or is no file; name a run, or a file that `firstlight export` wrote"),
        ("model.h5", ConfigError, "ends in none of .onnx, .safetensors, .pt2, .pt; name a run"),
    ],
)
def test_what_is_no_exported_file(tmp_path: Path, name: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        open_exported(tmp_path / name)


def test_no_image_and_too_many_classes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image was named; give image files or folders"):
        predict_with_file(SHIPPED_READER, [])
    with pytest.raises(ConfigError, match="--top is 11; allowed: 1 to 10"):
        predict_with_file(SHIPPED_READER, [tmp_path], top=11)


def test_a_table_of_pixels_is_asked_batch_by_batch(tmp_path: Path) -> None:
    """E8 for exported files: the same answers for rows of a CSV as for the arrays, in a table that ends whole."""
    images = np.random.default_rng(1).integers(0, 256, (250, 784), dtype=np.uint8)
    header = ",".join(f"pixel{number}" for number in range(784))
    (tmp_path / "test.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in images.tolist())]) + "\n")
    found = predict_with_file(SHIPPED_READER, [tmp_path / "test.csv"], out=tmp_path / "answers.npy")
    wanted = Reader(SHIPPED_READER).probabilities(images.reshape(-1, 1, 28, 28))
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), wanted, atol=1e-6)
    assert found[249]["image"] == f"{tmp_path / 'test.csv'}[249]"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.npy", "test.csv"]


# What a file says of itself

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_a_description_comes_back() -> None:
    assert read_description(DESCRIPTION.to_json(), Path("f")) == DESCRIPTION


@settings(max_examples=40)
@given(st.sampled_from(["class_names", "input", "output", "pixels", "format"]), JSON)
def test_a_damaged_description_is_one_kind_of_error(key: str, value: object) -> None:
    """Fault 18: whatever stands there, it is read or refused."""
    whole = json.loads(DESCRIPTION.to_json()) | {key: value}
    try:
        found = read_description(json.dumps(whole), Path("f"))
    except CheckpointError as error:
        assert str(error).startswith("f") and ";" in str(error)
    else:
        assert len(found.class_names) == 2


@given(st.text(max_size=50))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(CheckpointError):
        read_description(text, Path("f"))


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: No such file or folder; name image files, or a folder of them"):
        predict_with_file(SHIPPED_READER, [tmp_path / "none.png"], out=tmp_path / "answers.csv")
    assert not (tmp_path / "answers.csv").exists()
