"""Evaluation: exact on an odd last batch, in eval mode, without gradients, and it changes nothing (B8)."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

import firstlight as fl
from firstlight.config.schema import EvaluationConfig
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize
from firstlight.engine.device import Arithmetic
from firstlight.engine.evaluate import evaluate_model, look_again, predict_probabilities
from firstlight.errors import DataError
from firstlight.models.mlp import MLP
from firstlight.models.small_cnn import SmallCNN

Train = Callable[..., fl.Run]
CPU = Arithmetic("cpu")


def loader(batch_size: int) -> Loader:
    return Loader(fl.load_data("digits", "test"), batch_size=batch_size, seed=0, normalize=Normalize((0.3,), (0.4,)))


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallCNN((1, 8, 8), 10, widths=(4, 8), dropout=0.5)


def test_figures_are_those_of_the_whole_set_at_once(model: nn.Module) -> None:
    """B8: 359 images in batches of 100 leave an odd last batch of 59."""
    result = evaluate_model(model, loader(100), 10, CPU)
    images, labels, _ = next(loader(359).batches(0))
    logits = model.eval()(images).detach()
    assert result.num_images == 359
    assert result.accuracy == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert result.loss == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-5)
    assert result.top_k_accuracy == pytest.approx(float((logits.topk(5).indices == labels[:, None]).any(1).float().mean()), abs=1e-6)


PIXELS = fl.load_data("digits", "test").images[:60].float() / 255


def views_of(images: torch.Tensor) -> list[torch.Tensor]:
    """Return the six views of images [B, C, H, W], by plain slices of a reflected border."""
    padded = torch.cat((images[:, :, :, 1:2], images, images[:, :, :, -2:-1]), 3)
    padded = torch.cat((padded[:, :, 1:2], padded, padded[:, :, -2:-1]), 2)
    straight = [images, padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]]
    return [turned for image in straight for turned in (image, torch.flip(image, (3,)))]


@pytest.mark.parametrize(("views", "num"), [("mirror", 2), ("mirror_shift", 6)])
def test_views_are_averaged_as_probabilities(model: nn.Module, views: Any, num: int) -> None:
    """F9: the mean over an image and its other views, beside plain slices."""
    model.eval()
    with torch.no_grad():
        expected = torch.stack([model(view).softmax(1) for view in views_of(PIXELS)[:num]]).mean(0)
        found = look_again(model, PIXELS, model(PIXELS), EvaluationConfig(views=views)).softmax(1)
    torch.testing.assert_close(found, expected)


def test_only_images_in_doubt_are_looked_at_again(model: nn.Module) -> None:
    """F9: selective test-time augmentation; which other images are in the batch changes nothing."""
    model.eval()
    with torch.no_grad():
        first = model(PIXELS)
        sure = first.softmax(1).amax(1)
        bound = float(sure.median())
        found = look_again(model, PIXELS, first, EvaluationConfig(views="mirror", views_below=bound))
        always = look_again(model, PIXELS, first, EvaluationConfig(views="mirror"))
    assert torch.equal(found[sure > bound], first[sure > bound])
    torch.testing.assert_close(found[sure <= bound], always[sure <= bound])
    assert 20 < int((sure > bound).sum()) < 40
    assert look_again(model, PIXELS, first, EvaluationConfig(views="mirror", views_below=0.0)) is first


def test_validation_test_and_prediction_use_the_same_views(train: Train) -> None:
    """D11: one setting, read by all who ask the network."""
    run = train("evaluation.views=mirror_shift", "train.test_at_end=true")
    assert fl.evaluate(run.path)["accuracy"] == pytest.approx(run.summary["val_accuracy"])
    assert fl.evaluate(run.path, split="test")["loss"] == pytest.approx(run.summary["test_loss"])
    assert run.summary["test_loss"] != train(name="one").summary.get("test_loss")


def test_batch_norm_is_in_eval_mode_and_the_mode_comes_back(model: nn.Module) -> None:
    """B8: neither statistics nor mode nor gradients change, and dropout draws nothing."""
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again = (evaluate_model(model, loader(64), 10, CPU) for _ in range(2))
    assert first == again
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_probabilities_sum_to_one_in_the_order_of_the_data(model: nn.Module) -> None:
    probabilities = predict_probabilities(model, loader(100), CPU)
    assert probabilities.shape == (359, 10)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(359))
    torch.testing.assert_close(probabilities, predict_probabilities(model, loader(7), CPU), rtol=1e-4, atol=1e-6)


def test_the_same_loop_serves_labelled_and_unlabelled_images() -> None:
    """D11: predict and evaluate agree on every image."""
    model = MLP((1, 8, 8), 10)
    labels = fl.load_data("digits", "test").labels
    assert labels is not None
    right = (predict_probabilities(model, loader(50), CPU).argmax(1) == labels).float().mean()
    assert evaluate_model(model, loader(50), 10, CPU).accuracy == pytest.approx(float(right), abs=1e-6)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Return `photos("cat", "dog", size=8)`: the folder of photos anew, twelve of noise in each class."""

    def write(*class_names: str, size: int = 8, seed: int = 0) -> Path:
        folder = tmp_path / "photos"
        shutil.rmtree(folder, ignore_errors=True)
        noise = np.random.default_rng(seed)
        for name in class_names:
            (folder / name).mkdir(parents=True)
            for number in range(12):
                Image.fromarray(noise.integers(0, 256, (size, size), dtype=np.uint8)).save(folder / name / f"{number}.png")
        return folder

    return write


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(
    ("class_names", "size", "message"),
    [
        (("cat", "dog", "eel"), 8, "its classes are not those that the run was trained on: it has also eel; put the old data back"),
        (("cat", "eel"), 8, "it lacks dog, it has also eel"),
        (("cat", "dog"), 9, "its images are 1 x 9 x 9, but the run was trained on 1 x 8 x 8; put the old data back"),
    ],
    ids=["more classes", "other classes", "other shape"],
)
def test_other_data_than_those_of_the_run_are_refused(
    train: Train, photos: Callable[..., Path], class_names: tuple[str, ...], size: int, message: str, split: str
) -> None:
    """Fault 20: the run's answers would get wrong names. Nobody saw a figure of the test set, so nothing is recorded as opened."""
    run = train(f"data={{name: folder, path: {photos('cat', 'dog')}}}", "split.num_train=null", "train.epochs=1")
    photos(*class_names, size=size)
    with pytest.raises(DataError, match=re.escape(message)):
        fl.evaluate(run.path, split=split)
    assert fl.load_run(run.path).info["test_openings"] == []


def test_other_pixels_than_those_that_were_validated_on_are_refused(train: Train, photos: Callable[..., Path]) -> None:
    """The places of the validation images are the same; where the run knows the images themselves, these are compared."""
    run = train(f"data={{name: folder, path: {photos('cat', 'dog')}}}", "split.num_train=null", "train.epochs=1")
    photos("cat", "dog", seed=1)
    with pytest.raises(DataError, match="the validation images are not those of run"):
        fl.evaluate(run.path)
