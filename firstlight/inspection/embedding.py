"""The penultimate layer as a map: images as points, near each other where the network takes them for alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from firstlight.data.draws import permutation
from firstlight.errors import ConfigError
from firstlight.files import write_pictures
from firstlight.inspection.opened import opened
from firstlight.inspection.penultimate import feature_batches
from firstlight.metrics.embedding import neighbour_accuracy, principal_components, silhouette
from firstlight.plotting.embedding import plot_embedding
from firstlight.tracking.csv_table import write_csv
from firstlight.tracking.table import print_table

Method = Literal["pca", "tsne", "umap"]

NEIGHBOURS = 5
"""Nearest neighbours that vote on a point's class."""
MOST = 20_000
"""Images of a map: beyond, distances between all of them take minutes."""
PCA_FIRST = 50
"""Components that t-SNE and UMAP are given where there are more features, as van der Maaten and Hinton (2008) did."""
SMALLEST = 3


def embedding(
    run: str | Path,
    *,
    method: Method = "pca",
    num: int = 2000,
    seed: int = 0,
    split: str = "val",
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Draw the features of a split's images in two dimensions, write the points as a table, and return how well classes lie apart.

    method: principal components, t-SNE (van der Maaten and Hinton 2008) or UMAP (McInnes et al. 2018); num: images, at most MOST, drawn
    from `seed` where the split has more. Raises ConfigError where the package of a method is missing.
    """
    if not SMALLEST <= num <= MOST:
        raise ConfigError(f"--num is {num}; allowed: {SMALLEST} to {MOST:,} images")
    place = _METHODS[method]() if method in _METHODS else None  # a missing package is said before anything is computed
    with opened(run, f"embedding-{method}", split=split, runs_dir=runs_dir, data_dir=data_dir) as found:
        if len(found.dataset) < SMALLEST:
            raise ConfigError(f"{split} has {len(found.dataset)} images, a map needs {SMALLEST}; take another --split")
        sample = permutation(len(found.dataset), seed, 0)[:num].sort().values
        chosen = found.dataset.subset(sample)
        batches = [
            (features.cpu(), logits.argmax(1).cpu())
            for features, logits, _ in feature_batches(found.model, found.loader(chosen), found.arithmetic)
        ]
        features, predicted = (torch.cat(column) for column in zip(*batches, strict=True))
        found.refuse_nonfinite(features)
        labels, names = chosen.labels, chosen.class_names
        assert labels is not None
        components = principal_components(features, PCA_FIRST)
        narrow = components.points if features.shape[1] > PCA_FIRST else features.double()
        shares = components.shares[:2].tolist()
        points = components.points[:, :2] if place is None else place(narrow, seed)
        figures = {
            "method": method,
            "num_points": len(chosen),
            "num_features": features.shape[1],
            "seed": seed,
            "neighbours": NEIGHBOURS,
            "accuracy": float((predicted == labels).double().mean()),
            "neighbour_accuracy": neighbour_accuracy(features, labels, k=NEIGHBOURS),
            "neighbour_accuracy_on_map": neighbour_accuracy(points, labels, k=NEIGHBOURS),
            "silhouette": silhouette(features, labels),
            "silhouette_on_map": silhouette(points, labels),
            "explained_variance": shares,
        }
        says = say_embedding(figures, len(found.dataset), split)
        picture = plot_embedding(
            points.numpy(), labels.numpy(), predicted.numpy(), names, axes=_axes(method, shares),
            title=f"{found.run.name}: {says}",
        )  # fmt: skip
        rows = [
            {
                "image": int(sample[index]), "x": float(points[index, 0]), "y": float(points[index, 1]),
                "label": names[int(labels[index])], "predicted": names[int(predicted[index])],
            }
            for index in range(len(sample))
        ]  # fmt: skip
        table = write_csv(found.stem.with_name(f"{found.stem.name}.csv"), rows)
        return found.keep({"says": says, **figures}, [*write_pictures(found.stem, picture), table])


def say_embedding(figures: dict[str, Any], num_images: int, split: str) -> str:
    """Return how well classes lie apart in one sentence."""
    sampled = f"{figures['num_points']:,} of {num_images:,}" if figures["num_points"] < num_images else f"{num_images:,}"
    widths = figures["silhouette"]
    apart = "" if widths is None else f"; silhouette {widths:.2f}"
    return (
        f"the {NEIGHBOURS} nearest neighbours name the class of {figures['neighbour_accuracy']:.1%} of {sampled} {split} images "
        f"by {figures['num_features']:,} features, {figures['neighbour_accuracy_on_map']:.1%} on this map{apart}"
    )


def print_embedding(result: dict[str, Any]) -> None:
    """Print the finding and how well classes lie apart."""
    print(result["says"] + "\n")
    rows = [
        {
            "where": f"{result['num_features']:,} features",
            "neighbour accuracy": result["neighbour_accuracy"],
            "silhouette": result["silhouette"],
        },
        {
            "where": f"the map ({result['method']})",
            "neighbour accuracy": result["neighbour_accuracy_on_map"],
            "silhouette": result["silhouette_on_map"],
        },
    ]
    print_table(rows, ("where", "neighbour accuracy", "silhouette"))
    print(f"\nthe network itself is right on {result['accuracy']:.1%} of them")
    for file in result["files"]:
        print(file)


def _axes(method: Method, shares: list[float]) -> tuple[str, str]:
    if method == "pca":
        return f"first principal component ({shares[0]:.0%} of the variance)", f"second principal component ({shares[1]:.0%})"
    name = {"tsne": "t-SNE", "umap": "UMAP"}[method]
    return f"{name} 1 (no unit; only nearness counts)", f"{name} 2 (no unit)"


def _tsne() -> Callable[[Tensor, int], Tensor]:
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise ConfigError('t-SNE needs scikit-learn; pip install "firstlight[embed]", or take --method pca') from None

    def place(features: Tensor, seed: int) -> Tensor:
        perplexity = min(30.0, (len(features) - 1) / 3)
        made = TSNE(2, init="pca", perplexity=perplexity, random_state=seed, n_jobs=1).fit_transform(features.float().numpy())
        return torch.from_numpy(made).double()

    return place


def _umap() -> Callable[[Tensor, int], Tensor]:
    try:
        from umap import UMAP
    except ImportError:
        raise ConfigError('UMAP needs umap-learn; pip install "firstlight[umap]", or take --method pca') from None

    def place(features: Tensor, seed: int) -> Tensor:
        neighbours = min(15, len(features) - 1)
        init = "spectral" if len(features) > 2 * neighbours else "random"  # the spectral start needs more points than it has dimensions
        made = UMAP(n_neighbors=neighbours, init=init, random_state=seed, n_jobs=1).fit_transform(features.float().numpy())
        return torch.from_numpy(made).double()

    return place


_METHODS: dict[str, Callable[[], Callable[[Tensor, int], Tensor]]] = {"tsne": _tsne, "umap": _umap}
