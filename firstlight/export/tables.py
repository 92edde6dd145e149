"""How a submission and an export look on a terminal."""

from typing import Any

from firstlight.tracking.table import print_table

SHOWN_CLASSES = 10


def print_submission(result: dict[str, Any]) -> None:
    """Print what was written or checked, what validation says of the score to come, or of the one that came."""
    if "says" in result:
        print(_validation(result))
        print(result["says"])
        return
    verb = "agrees with " + result["sample"] if "sample" in result else "written"
    print(
        f"{result['files'][0]} {verb}: {result['header']}, {result['num_images']:,} rows, ids {result['first_id']} to {result['last_id']}"
    )
    print(f"labels: {_counts(result['class_counts'])}")
    if "val_accuracy" in result:
        print(_validation(result))
    if result.get("score_interval"):
        low, high = result["score_interval"]
        print(f"expect a score of {low:.4f} to {high:.4f} on {result['num_images']:,} images; `firstlight submit RUN --score S` judges it")
    for line in result["warnings"]:
        print(f"warning: {line}")


def _validation(result: dict[str, Any]) -> str:
    if result["val_accuracy"] is None:
        return "validation: none, so nothing says what score to expect"
    low, high = result["val_interval"]
    return f"validation: accuracy {result['val_accuracy']:.4f} of {result['num_val']:,} images (95 % interval {low:.4f} to {high:.4f})"


def _counts(counts: dict[str, int]) -> str:
    """Return how often each label was given; of many labels the most and the least frequent."""
    if len(counts) <= SHOWN_CLASSES:
        return ", ".join(f"{word} {num:,}" for word, num in counts.items())
    (most, many), (least, few) = max(counts.items(), key=lambda item: item[1]), min(counts.items(), key=lambda item: item[1])
    return f"{len(counts):,} classes, from {few:,} ({least}) to {many:,} ({most}) rows"


def print_export(result: dict[str, Any]) -> None:
    """Print what was written, and how close it is to the run."""
    print_table(
        [
            {
                "format": entry["format"],
                "KiB": round(entry["bytes"] / 1024, 1),
                "logits differ": f"{entry['max_logit_difference']:.1e}",
                "probabilities differ": f"{entry['max_probability_difference']:.1e}",
                "other classes": entry["num_other_classes"],
                "file": entry["file"],
            }
            for entry in result["exports"]
        ],
        ("format", "KiB", "logits differ", "probabilities differ", "other classes", "file"),
    )
    print(f"\ncompared with the run in float32 on {result['num_images']} {result['images']}; logits as a share of the largest")
    if own := result["run_arithmetic"]:
        print(
            f"the run itself computes in {own['precision']} on {own['device']}: there its probabilities differ by up to "
            f"{own['max_probability_difference']:.1e}, and {own['num_other_classes']} of {own['num_images']} classes"
        )
    for line in result["warnings"]:
        print(f"warning: {line}")
