"""What every benchmark shares: the machine it ran on, its result as JSON, and RECORDS.md with all results.

`python -m benchmarks.record` writes RECORDS.md anew.
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from firstlight.files import make_dir, write_json, write_text

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"

Row = dict[str, Any]
"""One measured number: what, value, unit, and where they apply least or most, aim (to reach), n (repetitions), note."""

INTRO = """# Records

Generated from benchmarks/results/*.json; do not edit. "Needed" is what the specification asks for, "aim" what we want.
A ratio is the median of interleaved pairs. Absolute times hold for the machine named above each table alone.
"""


def refuse_when_busy(force: bool) -> None:
    """Leave with a message when more processes run than there are cores: no time would mean anything."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores and not force:
        sys.exit(f"the load is {load:.1f} on {cores} cores, too busy to measure; wait, or add --force")


def write_result(name: str, title: str, command: str, rows: Sequence[Row]) -> Path:
    """Write the rows of a benchmark to results/<name>.json, then RECORDS.md, and return the JSON's path."""
    path = make_dir(RESULTS) / f"{name}.json"
    write_json(path, {"title": title, "command": command, "date": date.today().isoformat(), "machine": machine(), "rows": list(rows)})
    write_records()
    return path


def write_records() -> Path:
    """Write RECORDS.md from every result that is there, and return its path."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    path = FOLDER / "RECORDS.md"
    write_text(path, "\n".join([INTRO, *(_section(result) for result in results)]))
    return path


def machine() -> dict[str, Any]:
    """Return the processor, its cores, the threads that torch uses, the graphics card, and the versions."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    """Return the processor's name, with the widest vector instructions that torch uses on it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({torch.backends.cpu.get_cpu_capability()})"


def _section(result: dict[str, Any]) -> str:
    here = result["machine"]
    place = [here["cpu"], f"{here['cores']} cores", f"{here['threads']} threads used", here["gpu"], f"torch {here['torch']}"]
    lines = [
        f"## {result['title']}",
        "",
        f"`{result['command']}`, {result['date']}, on {', '.join(part for part in place if part)}, load {here['load']}",
        "",
        "| what | value | unit | needed | aim | n | note |",
        "|---|---:|---|---:|---:|---:|---|",
        *(_line(row) for row in result["rows"]),
        "",
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    needed, aim = (f">= {_number(row[key])}" if row.get(key) is not None else "" for key in ("least", "aim"))
    if row.get("most") is not None:
        needed = f"<= {_number(row['most'])}"
    cells = [row["what"], _number(row["value"]), row["unit"], needed, aim, str(row.get("n", "")), row.get("note", "")]
    return f"| {' | '.join(cells)} |"


def _number(value: Any) -> str:
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.4g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


if __name__ == "__main__":
    print(write_records())
