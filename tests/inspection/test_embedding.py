"""`inspect embedding`: a map of the penultimate layer, its table, and what it says."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from firstlight.__main__ import main
from firstlight.errors import ConfigError
from firstlight.inspection.embedding import embedding
from firstlight.inspection.opened import opened
from firstlight.inspection.penultimate import features_of

Find = Callable[[str], Path]


def rows_of(result: dict[str, Any]) -> list[dict[str, str]]:
    (path,) = [path for path in result["files"] if path.endswith(".csv")]
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def places(rows: list[dict[str, str]]) -> np.ndarray[Any, Any]:
    return np.array([[float(row["x"]), float(row["y"])] for row in rows])


def test_the_map_is_scikit_learns_pca_of_the_penultimate_layer(trained_run: Find) -> None:
    """B17: embedding plot of the penultimate layer, and it is really that layer."""
    result = embedding(trained_run("cnn"))
    with opened(trained_run("cnn"), "x") as o:
        features, labels = features_of(o.model, o.loader(), o.arithmetic).double().numpy(), o.dataset.labels
    pca = PCA(2, svd_solver="full")
    np.testing.assert_allclose(places(rows_of(result)), pca.fit_transform(features), atol=1e-5)
    assert result["explained_variance"] == pytest.approx(pca.explained_variance_ratio_.tolist(), abs=1e-6)
    assert result["silhouette"] == pytest.approx(silhouette_score(features, labels), abs=1e-6)
    assert (result["num_features"], result["num_points"], result["num_images"]) == (8, 144, 144)
    assert f"{result['neighbour_accuracy']:.1%} of 144 val images by 8 features" in result["says"]


def test_what_is_written(trained_run: Find) -> None:
    result = embedding(trained_run("cnn"))
    assert [Path(path).name for path in result["files"]] == [f"embedding-pca-val.{end}" for end in ("png", "svg", "csv", "json")]
    kept = json.loads(Path(result["files"][-1]).read_text())
    assert kept == json.loads(json.dumps(result)) and kept["what"] == "embedding-pca"
    wrong = sum(row["label"] != row["predicted"] for row in rows_of(result))
    assert result["accuracy"] == pytest.approx(1 - wrong / 144)


def test_of_many_images_a_seeded_sample_is_taken_and_said(trained_run: Find) -> None:
    results, chosen = [], []
    for seed in (0, 0, 1):
        results.append(embedding(trained_run("plain"), num=40, seed=seed, split="train"))
        chosen.append([row["image"] for row in rows_of(results[-1])])
    assert results[0] == results[1] and chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 40 and "of 40 of 1,294 train images" in results[0]["says"]


def test_raw_tensors_have_features_too(trained_run: Find) -> None:
    assert embedding(trained_run("scratch"))["num_features"] == 8


def test_tsne_is_seeded_and_keeps_neighbours(trained_run: Find) -> None:
    """B17: t-SNE."""
    first = embedding(trained_run("cnn"), method="tsne", num=60)
    points = places(rows_of(first))
    embedding(trained_run("cnn"), method="tsne", num=60)
    np.testing.assert_array_equal(points, places(rows_of(first)))
    assert first["neighbour_accuracy_on_map"] > 0.3 and np.ptp(points, axis=0).min() > 1


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_umap_is_seeded_and_keeps_neighbours(trained_run: Find) -> None:
    """B17: UMAP; its import and the compiler behind it take half a minute."""
    first = embedding(trained_run("cnn"), method="umap", num=60)
    points = places(rows_of(first))
    embedding(trained_run("cnn"), method="umap", num=60)
    np.testing.assert_array_equal(points, places(rows_of(first)))
    assert first["neighbour_accuracy_on_map"] > 0.3


@pytest.mark.parametrize(("method", "module", "extra"), [("tsne", "sklearn.manifold", "embed"), ("umap", "umap", "umap")])
def test_a_missing_package_is_one_line_with_its_extra(
    trained_run: Find, monkeypatch: pytest.MonkeyPatch, method: Any, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as caught:
        embedding(trained_run("cnn"), method=method)
    assert f'pip install "firstlight[{extra}]"' in str(caught.value) and "\n" not in str(caught.value)


def test_too_few_points_and_a_missing_split_are_refused(trained_run: Find, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"--num is 2; allowed: 3 to 20,000 images"):
        embedding(trained_run("cnn"), num=2)
    with pytest.raises(SystemExit) as left:
        main(["inspect", "embedding", str(trained_run("no_val"))])
    assert left.value.code == 3 and "was trained without validation" in capsys.readouterr().err
