"""Print the five longest files and functions of the package: each is a question, are these two things?"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "firstlight"


def functions(path: Path) -> list[tuple[int, str]]:
    """Return (lines, place) of every function in a file."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]
    return [((node.end_lineno or node.lineno) - node.lineno + 1, f"{path.relative_to(PACKAGE)}:{node.name}") for node in nodes]


def main() -> None:
    """Print both lists and the medians."""
    paths = sorted(PACKAGE.rglob("*.py"))
    files = sorted((len(path.read_text(encoding="utf-8").splitlines()), str(path.relative_to(PACKAGE))) for path in paths)
    bodies = sorted(body for path in paths for body in functions(path))
    for what, rows in (("files", files), ("functions", bodies)):
        print(f"longest {what} (median {rows[len(rows) // 2][0]}): " + ", ".join(f"{name} {lines}" for lines, name in reversed(rows[-5:])))


if __name__ == "__main__":
    main()
