"""Evaluation and prediction: one loop, in eval mode, without gradients, exact on an odd last batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.functional import pad as reflection_pad

from firstlight.config.schema import EvaluationConfig
from firstlight.data.build import EVALUATION_BATCH_SIZE
from firstlight.data.loader import Batch, Loader
from firstlight.engine.device import Arithmetic
from firstlight.engine.distributed import Ranks
from firstlight.engine.memory import out_of_memory
from firstlight.metrics.evaluation import Evaluation
from firstlight.metrics.totals import Totals

TOP_K = 5
ONE_LOOK = EvaluationConfig()
"""Each image is seen once, as it is."""


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Put a model into eval mode without gradients for the block, and back as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


class EvaluationStopped(Exception):
    """An evaluation was broken off because somebody asked for a stop."""


def evaluate_model(
    model: Any,
    loader: Loader,
    num_classes: int,
    arithmetic: Arithmetic,
    looks: EvaluationConfig = ONE_LOOK,
    *,
    asked_to_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Return loss, accuracy, top-k accuracy and the confusion matrix of a model over all images of a labelled loader.

    ranks: processes with loaders that share the batches; all return the figures of all images.
    Raises EvaluationStopped after a batch where `asked_to_stop` says so.
    """
    totals = Totals.zeros(num_classes, top_k=min(TOP_K, num_classes), device=arithmetic.device)
    for logits, batch in logits_of(model, loader, arithmetic, looks):
        if asked_to_stop():
            raise EvaluationStopped
        totals.add(logits, batch.labels, cross_entropy(logits, batch.labels, reduction="none"))
    if ranks is not None:
        ranks.add_up([totals.loss, totals.top_k_correct, totals.confusion])
    return totals.result()


def predict_probabilities(model: Any, loader: Loader, arithmetic: Arithmetic, looks: EvaluationConfig = ONE_LOOK) -> Tensor:
    """Return the class probabilities float32 [N, num_classes] of all images of a loader, on the CPU."""
    return torch.cat([logits.softmax(1).cpu() for logits, _ in logits_of(model, loader, arithmetic, looks)])


def logits_of(
    model: Any, loader: Loader, arithmetic: Arithmetic, looks: EvaluationConfig = ONE_LOOK, *, start: int = 0
) -> Iterator[tuple[Tensor, Batch]]:
    """Yield the logits float32 [B, num_classes] of each batch from number `start` on, with the batch. Raises OutOfMemoryError."""
    smaller = "train.batch_size" if loader.batch_size > EVALUATION_BATCH_SIZE else "network or a smaller input.image_size"
    remedy = f"try a smaller {smaller}, or a machine with more memory"
    with eval_mode(model), out_of_memory(f"evaluating batches of {loader.batch_size}", remedy):
        for batch in loader.batches(0, start):
            with arithmetic.autocast():
                logits = model(batch.images).float()
                if looks.views != "one":
                    logits = look_again(model, batch.images, logits, looks)
            yield logits, batch


def look_again(model: Any, images: Tensor, logits: Tensor, looks: EvaluationConfig) -> Tensor:
    """Return the logarithm of the mean probability over all views of each image, float32 [B, num_classes] (Krizhevsky et al. 2012).

    images: [B, C, H, W]; logits: of the images as they are. An image that was recognised with more than the probability
    `looks.views_below` keeps what the first look said.
    """
    first = logits.softmax(1)
    unsure = (first.amax(1) <= looks.views_below).nonzero().squeeze(1)
    if len(unsure) == 0:
        return logits
    others = [model(view).float().softmax(1) for view in other_views(images[unsure], looks.views)]
    mean = torch.stack([first[unsure], *others]).mean(0).clamp(min=torch.finfo(torch.float32).tiny)
    return logits.index_copy(0, unsure, mean.log())


def other_views(images: Tensor, views: str) -> Iterator[Tensor]:
    """Yield mirror images (`mirror`), images moved by a pixel to the upper left and lower right (`shift`), or all (`mirror_shift`)."""
    straight = [images]
    if "shift" in views:
        height, width = images.shape[2:]
        padded = reflection_pad(images, (1, 1, 1, 1), mode="reflect")
        straight += [padded[:, :, corner : corner + height, corner : corner + width] for corner in (0, 2)]
    yield from straight[1:]
    if "mirror" in views:
        yield from (image.flip(3) for image in straight)
