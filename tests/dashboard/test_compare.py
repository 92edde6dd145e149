"""What the page that compares runs says of them: over seeds, image by image, or that nothing can be said."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy.stats import binomtest, ttest_rel

from firstlight.dashboard.compare import comparison_data, read_run, stamp_of
from firstlight.tracking.run import Run


def leave_run(folder: Path, name: str, accuracy: float, *, seed: int = 0, val_hash: str = "same", **optim: Any) -> Run:
    """Write what a finished run of two epochs leaves; optim: its settings."""
    path = folder / name
    path.mkdir()
    data = {"num_val": 100, "val_hash": val_hash, "content_hash": "x", "class_names": ["0", "1"]}
    (path / "run.json").write_text(json.dumps({"state": "finished", "summary": {"val_accuracy": accuracy}, "data": data, "seconds": 3.0}))
    (path / "config.yaml").write_text(
        yaml.safe_dump({"name": name, "seed": seed, "optim": {"name": "sgd", **optim}, "model": {"name": "lenet"}})
    )
    rows = [
        {
            "kind": "epoch",
            "epoch": epoch,
            "step": epoch,
            "train_loss": 1 / epoch,
            "train_accuracy": 0.5,
            "val_loss": 0.7,
            "val_accuracy": value,
            "best": value == accuracy,
        }
        for epoch, value in ((1, accuracy / 2), (2, accuracy))
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Run(path)


A, B = (0.91, 0.92, 0.90), (0.80, 0.83, 0.80)


def seeded(folder: Path) -> dict[str, Run]:
    found = {f"a{seed}": leave_run(folder, f"a{seed}", value, seed=seed, lr=0.1) for seed, value in enumerate(A)}
    return found | {f"b{seed}": leave_run(folder, f"b{seed}", value, seed=seed, lr=1.0) for seed, value in enumerate(B)}


def test_seeds_of_two_settings_are_paired(tmp_path: Path) -> None:
    """E4: runs that differ in the seed alone are one setting; scipy's paired test is the oracle."""
    found = comparison_data(seeded(tmp_path))
    assert found["how"] == "seeds"
    assert [(group["setting"], group["runs"]) for group in found["groups"]] == [
        ("optim.lr=0.1", ["a0", "a1", "a2"]),
        ("optim.lr=1", ["b0", "b1", "b2"]),
    ]
    (pair,) = found["pairs"]
    assert pair["p"] == pair["p_corrected"] == pytest.approx(ttest_rel(A, B).pvalue, rel=1e-6)
    assert pair["difference"] == pytest.approx(0.1) and pair["n"] == 3
    assert found["says"][0].startswith("Best setting: optim.lr=0.1, mean validation accuracy 0.9100 (95 % interval ")
    assert found["says"][1].startswith("optim.lr=0.1 has 0.1000 more validation accuracy than optim.lr=1 (")
    assert {row["key"]: row["values"] for row in found["differences"]} == {"seed": list("012012"), "optim.lr": ["0.1"] * 3 + ["1"] * 3}


def test_a_third_setting_with_one_seed_is_not_judged(tmp_path: Path) -> None:
    runs = seeded(tmp_path) | {"c0": leave_run(tmp_path, "c0", 0.3, lr=5.0)}
    found = comparison_data(runs)
    assert len(found["groups"]) == 3 and len(found["pairs"]) == 1
    assert found["pairs"][0]["p_corrected"] == pytest.approx(min(1.0, 3 * ttest_rel(A, B).pvalue), rel=1e-6)
    assert found["says"][-1] == "1 more settings share fewer than two seeds with the best one, so nothing is said about them"


def test_seeds_of_one_setting_have_a_spread(tmp_path: Path) -> None:
    found = comparison_data({key: run for key, run in seeded(tmp_path).items() if key.startswith("a")})
    assert found["says"] == ["The same settings with other seeds: mean validation accuracy 0.9100 (95 % interval 0.8852 to 0.9348, n = 3)."]


def test_one_run_each_says_nothing_about_noise(tmp_path: Path) -> None:
    found = comparison_data({"a": leave_run(tmp_path, "a", 0.9, lr=0.1), "b": leave_run(tmp_path, "b", 0.8, lr=1.0)})
    assert found["how"] == "none" and found["says"][0] == "Best validation accuracy: a, 0.9000."
    assert found["says"][1].startswith("One run each says nothing about noise: their order may be chance.")


def test_image_by_image_where_predictions_were_kept(tmp_path: Path) -> None:
    """F2: the exact McNemar test of scipy, against the best run."""
    runs = {"a": leave_run(tmp_path, "a", 0.9, lr=0.1), "b": leave_run(tmp_path, "b", 0.8, lr=1.0)}
    for run, wrong in ((runs["a"], {0}), (runs["b"], {1, 2, 3, 4, 5, 6, 7})):
        (run.path / "inspection").mkdir()
        with (run.path / "inspection" / "predictions-val.csv").open("w", newline="") as handle:
            csv.writer(handle).writerows([["index", "label", "predicted"], *([i, "0", "1" if i in wrong else "0"] for i in range(100))])
    found = comparison_data(runs)
    (pair,) = found["pairs"]
    assert (found["how"], pair["only_best"], pair["only_this"], pair["both_right"]) == ("images", 7, 1, 92)
    assert pair["p_corrected"] == pytest.approx(binomtest(1, 8).pvalue)
    assert "no difference beyond chance" in pair["says"] and found["says"][-1].startswith("One run each: another seed may turn the order")


def test_curves_figures_and_intervals(tmp_path: Path) -> None:
    """D14: train and validation loss and accuracy of several runs on the same axes."""
    found = comparison_data({"x": leave_run(tmp_path, "a", 0.9, lr=0.1), "y": leave_run(tmp_path, "b", 0.8, lr=1.0)})
    assert [(curve["id"], curve["name"]) for curve in found["curves"]] == [("x", "a"), ("y", "b")]
    first = found["curves"][0]
    assert first["epochs"] == [1, 2] and first["val_accuracy"] == [0.45, 0.9] and first["train_loss"] == [1.0, 0.5] and first["best"] == 2
    interval = binomtest(90, 100).proportion_ci(method="wilson")
    assert found["runs"][0]["interval"] == pytest.approx([interval.low, interval.high])
    assert found["same_images"] is True


def test_long_curves_are_thinned_and_keep_their_end(tmp_path: Path) -> None:
    run = leave_run(tmp_path, "a", 0.9, lr=0.1)
    rows = [{"kind": "epoch", "epoch": epoch, "step": epoch, "val_accuracy": epoch / 5000} for epoch in range(1, 5001)]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (curve,) = comparison_data({"a": Run(run.path)})["curves"]
    assert len(curve["epochs"]) == 1000 and curve["epochs"][-1] == 5000


def test_other_images_other_names_and_damage(tmp_path: Path) -> None:
    """Fault 50: a damaged run is named and left out; NaN becomes null; runs of one name carry their folder."""
    (tmp_path / "s").mkdir()
    runs = {
        "1": leave_run(tmp_path, "a", 0.9, lr=0.1),
        "2": leave_run(tmp_path / "s", "a", math.nan, lr=1.0, val_hash="other"),
        "3": leave_run(tmp_path, "bad", 0.1),
    }
    (runs["3"].path / "run.json").write_text('{"state": "fin')
    found = comparison_data(runs)
    assert [run["name"] for run in found["runs"]] == [f"{tmp_path.name}/a", "s/a"]
    assert found["damaged"][0]["id"] == "3" and found["damaged"][0]["why"].startswith("run.json: ")
    assert found["same_images"] is False and found["runs"][1]["val_accuracy"] is None
    json.dumps(found, allow_nan=False)


def test_what_was_read_is_kept_until_it_changes(tmp_path: Path) -> None:
    run = leave_run(tmp_path, "a", 0.9, lr=0.1)
    before = stamp_of(run.path)
    assert read_run(run.path, before) is read_run(run.path, stamp_of(run.path))
    with (run.path / "metrics.jsonl").open("a") as rows:
        rows.write('{"kind": "epoch", "epoch": 3, "step": 3}\n')
    after = stamp_of(run.path)
    assert after != before and len(read_run(run.path, after).epochs) == 3
