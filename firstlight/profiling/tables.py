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
    for remark in found["remarks"]:
        print(f"warning: {remark}")
    print(f"\n{found['says']}")
    print(*found["files"], sep="\n")


def print_memory(found: dict[str, Any]) -> None:
    """Print a row a network: what was counted in MiB, the measured peak beside the sum, and what is left unexplained."""
    keys = ("parameters", "gradients", "optimizer", "average", "activations", "sum", "peak", "unexplained")
    rows = [{"network": row["network"], **{key: row[key] / 2**20 for key in keys}} for row in found["networks"] if "why" not in row]
    kept = [key for key in keys if key != "average" or any(row[key] for row in rows)]
    print_table(rows, ["network", *kept], decimals=dict.fromkeys(keys, 2))
    print(
        f"\nMiB, at batch {found['batch_size']:,}. The peak is measured; gradients replace activations as they are made, so it may be below"
    )
    print("the sum. What it has more are temporaries of kernels and libraries: `unexplained`.")
    for row in found["networks"]:
        if "why" in row:
            print(f"{row['network']}: {row['why']}")
        elif not row["exact_peak"]:
            print(f"{row['network']}: this system keeps no peak of a part of a process; the one shown may be too large")
    print(f"\n{found['says']}")
    print(*found["files"], sep="\n")


def print_summary(found: dict[str, Any]) -> None:
    """Print a row a layer, the totals, and how they compare with what is published."""
    columns = ("layer", "kind", "output", "parameters", "FLOPs", "output_bytes", "weight_bytes")
    rows = [{**row, "output": " x ".join(map(str, row["output"])), "FLOPs": row["flops"]} for row in [*found["layers"], found["total"]]]
    print_table(rows, columns)
    print(f"\n{found['note']}")
    for line in found["published"]:
        print(line)
    print(f"\n{found['says']}")
    print(*found["files"], sep="\n")
