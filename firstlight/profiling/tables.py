"""How profiles look on a terminal: one function a command."""

from typing import Any

from firstlight.tracking.table import print_table


def print_throughput(found: dict[str, Any]) -> None:
    """Print a row a batch size, what binds each, and the finding."""
    rows = [
        {
            "batch": point["batch_size"],
            "images/s": round(point["images_per_second"]),
            "slowest": round(point["slowest_images_per_second"]),
            "fastest": round(point["fastest_images_per_second"]),
            "step ms": 1e3 * point["step_seconds"],
            **{part: f"{seconds / sum(point['part_seconds'].values()):.0%}" for part, seconds in point["part_seconds"].items()},
            "binds": point["binds"],
            "peak MiB": round(point["peak_mib"]),
        }
        for point in found["points"]
        if "why" not in point
    ]
    print_table(rows, list(rows[0]), decimals={"step ms": 3})
    print()
    for point in found["points"]:
        print(point["says"])
    print(f"\n{found['says']}")
    print(*found["files"], sep="\n")
