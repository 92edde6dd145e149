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
"""One measured number: what, value, unit, and where they apply least or most (needed), aim (to reach), n (repetitions), limit (how
near to it, "43 %"), guard (what was found equal in both arms), note. `aim_most` is an aim from above."""

INTRO = """# Records

Generated from benchmarks/results/*.json; do not edit. "Needed" is what the specification asks for, "aim" what we want.
A ratio is the median of interleaved pairs; "limit" is our share of what the machine could do, measured in the same run; "guard" is what
was found equal in both arms. Absolute times hold for the machine named above each table alone.
"""


def refuse_when_busy(force: bool) -> None:
    """Leave with a message when more processes run than there are cores: no time would mean anything."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores and not force:
        sys.exit(f"the load is {load:.1f} on {cores} cores, too busy to measure; wait, or add --force")


def write_result(name: str, title: str, command: str, rows: Sequence[Row], here: dict[str, Any] | None = None) -> Path:
    """Write the rows of a benchmark to results/<name>.json, then RECORDS.md, and return the JSON's path.

    here: what machine() says, where the work was done by other processes than this one.
    """
    path = make_dir(RESULTS) / f"{name}.json"
    head = {"title": title, "command": command, "date": date.today().isoformat(), "machine": here or machine()}
    write_json(path, {**head, "rows": list(rows)})
    write_records()
    return path


def write_records() -> Path:
    """Write RECORDS.md from every result that is there, and return its path."""
    path = FOLDER / "RECORDS.md"
    write_text(path, records_text())
    return path


def records_text() -> str:
    """Return what RECORDS.md has to say."""
    paths, tried = sorted(RESULTS.glob("*.json")), json.loads((FOLDER / "tried.json").read_text(encoding="utf-8"))
    return "\n".join([INTRO, *(_section(json.loads(path.read_text(encoding="utf-8")), tried.get(path.stem)) for path in paths)])


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


def _section(result: dict[str, Any], tried: str | None) -> str:
    """Return the section of a result; tried: what tried.json says of it."""
    here, rows = result["machine"], result["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in here.get("versions", {}).items())
    threads = f"{here['threads']} thread{'s' if here['threads'] > 1 else ''} used"
    place = [here["cpu"], f"{here['cores']} cores", threads, here["gpu"], f"torch {here['torch']}", versions]
    forced = ", measured on a busy machine (--force)" if here.get("forced") and here["load"] > here["cores"] else ""
    heads = [
        "what",
        "value",
        "unit",
        "needed",
        "aim",
        *(key for key in ("limit", "guard") if any(row.get(key) for row in rows)),
        "n",
        "note",
    ]
    lines = [
        f"## {result['title']}",
        "",
        f"`{result['command']}`, {result['date']}, on {', '.join(part for part in place if part)}, load {here['load']}{forced}",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'|'.join('---:' if head in ('value', 'needed', 'aim', 'limit', 'n') else '---' for head in heads)}|",
        *(_line(row, heads) for row in rows),
        "",
        *(f"- Missed: {row['what']}, by {missed:.0%} of what is needed." for row in rows if (missed := _missed(row)) > 0),
        *([f"- {tried}"] if tried else []),
        "",
    ]
    return "\n".join(lines)


def _line(row: Row, heads: Sequence[str]) -> str:
    bounds = {"needed": [(">=", "least"), ("<=", "most")], "aim": [(">=", "aim"), ("<=", "aim_most")]}
    cells = {
        head: " ".join(f"{sign} {number(row[key])}" for sign, key in keys if row.get(key) is not None) for head, keys in bounds.items()
    }
    cells |= {"value": number(row["value"])}
    return f"| {' | '.join(cells.get(head, str(row.get(head, ''))) for head in heads)} |"


def _missed(row: Row) -> float:
    """Return by which share of what is needed a figure misses it; 0 where it does not."""
    value, least, most = float(row["value"]), row.get("least"), row.get("most")
    if least is not None:
        return max(0.0, 1 - value / float(least))
    return max(0.0, value / float(most) - 1) if most else 0.0


def number(value: Any) -> str:
    """Return a figure as the tables show it: four digits of a small one, all of a whole one."""
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.4g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


if __name__ == "__main__":
    print(write_records())
