"""`make soak`: the proofs that take minutes, run once and recorded: what was tried, how often, how many failed, how long it took.

`python -m benchmarks.soak [pytest arguments]`, such as `-k survival` for some of them; the rows of the others stay, each with its
date. The exit code is pytest's.
"""

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from benchmarks.record import RESULTS, Row, write_result


def rows_of(report: Path) -> Iterator[Row]:
    """Yield one row a test function: its cases, how many of them failed, and their time."""
    cases: dict[tuple[str, str], list[ET.Element]] = {}
    for case in ET.parse(report).iter("testcase"):
        name = case.attrib["name"].partition("[")[0]
        cases.setdefault((case.attrib["classname"].removeprefix("tests."), name), []).append(case)
    for (module, name), found in cases.items():
        failed = sum(case.find("failure") is not None or case.find("error") is not None for case in found)
        skipped = sum(case.find("skipped") is not None for case in found)
        labels = ", ".join(case.attrib["name"].partition("[")[2].removesuffix("]") for case in found if "[" in case.attrib["name"])
        seconds = sum(float(case.attrib["time"]) for case in found)
        labels = labels[:120] + ("..." if labels[120:] else "")
        note = f"{date.today().isoformat()}, {seconds:.0f} s; {module}; {labels}{f'; {skipped} skipped' if skipped else ''}"
        yield {
            "what": name.removeprefix("test_").replace("_", " "),
            "value": failed,
            "unit": "failed",
            "most": 0,
            "n": len(found),
            "note": note,
        }


def earlier_rows() -> list[Row]:
    """Return what was recorded before."""
    path = RESULTS / "soak.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return rows


def main() -> None:
    """Run the marked tests and write the result."""
    words = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "soak", f"--junitxml={report}", *words]
        code = subprocess.run(command, check=False).returncode
        rows = {row["what"]: row for row in [*earlier_rows(), *rows_of(report)]}
    write_result("soak", "Long proofs", "python -m benchmarks.soak", sorted(rows.values(), key=lambda row: str(row["note"].split("; ")[1])))
    sys.exit(code)


if __name__ == "__main__":
    main()
