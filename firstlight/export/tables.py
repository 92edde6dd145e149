"""How a submission looks on a terminal."""

from typing import Any

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
