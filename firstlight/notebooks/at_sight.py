"""What the file of a handed-in notebook tells: kernel, order, errors, outputs, and what is no longer as it is in the lesson."""

import ast
import json
import re
from collections.abc import Iterator

from firstlight.notebooks.match import Finding, compare, pairs
from firstlight.notebooks.read import Given, HandedIn, one_line
from firstlight.notebooks.source import Source, load_library

MAX_OUTPUT_BYTES = 2 * 2**20
"""Size of the outputs of one cell."""
HIDING_TAGS = ("raises-exception", "skip-execution")
OURS = ("measured", "reveal", "show")
"""Functions of `lesson` that print."""


def findings_of(hand_in: HandedIn, source: Source | None) -> Iterator[Finding]:
    """Yield what the file alone tells: the handed-in cell, the lesson's cell, what is wrong in words."""
    yield from ((None, None, what) for what in _wrong_kernel(hand_in))
    cells = {given.number: cell for cell, given in pairs(hand_in, source)}
    yield from compare(hand_in, source) if source else ()
    yield from ((given, cells.get(given.number), what) for given, what in _wrong_order(hand_in))
    yield from ((given, cells.get(given.number), what) for given in hand_in.code if (what := _wrong_cell(given)))


def _wrong_kernel(hand_in: HandedIn) -> Iterator[str]:
    spec, info = (hand_in.metadata.get(name) for name in ("kernelspec", "language_info"))
    spec, info = spec if isinstance(spec, dict) else {}, info if isinstance(info, dict) else {}
    languages = [str(name).lower() for name in (info.get("name"), spec.get("language")) if name]
    if not languages and not str(spec.get("name", "")).startswith("python"):
        yield "says neither kernel nor language: open it in Jupyter with a Python 3 kernel, run it and save it"
    elif any(name not in ("python", "ipython") for name in languages):
        yield f"was run by another kernel ({next(name for name in languages if name not in ('python', 'ipython'))[:30]}), and not by Python"
    elif spec.get("name") == "python2" or str(info.get("version", "3")).startswith("2"):
        yield "was run by Python 2"


def _wrong_order(hand_in: HandedIn) -> Iterator[tuple[Given, str]]:
    """Yield cells that did not run, and the first that breaks the order 1, 2, 3, ..."""
    again = "restart the kernel, run all cells, save"
    idle = [given for given in hand_in.code if given.count is None]
    if idle:
        others = "".join(f", {given.number}" for given in idle[1:8]) + (", ..." if idle[8:] else "")
        yield idle[0], f"did not run{f', nor did {others[2:]}' if others else ''}; {again}"
    ran = [given for given in hand_in.code if given.count is not None]
    for expected, given in enumerate(ran, 1):
        if given.count != expected and len(ran) == len(hand_in.code):
            yield given, f"ran as number {given.count} and not as number {expected}: not from top to bottom in one go; {again}"
            return


def _wrong_cell(given: Given) -> str:
    """Return what is wrong with a code cell, the first thing alone, or nothing."""
    hiding = [tag for tag in given.tags if tag in HIDING_TAGS]
    size = sum(len(json.dumps(output)) for output in given.outputs)
    code = _parsed(given.source)
    errors = [output for output in given.outputs if output.get("output_type") == "error"]
    if hiding:
        return f"hides errors: it has the tag {hiding[0]}"
    if re.match(r"\s*%%capture\b", given.source):
        return "hides what it prints (%%capture)"
    if size > MAX_OUTPUT_BYTES:
        return f"its outputs take {size / 2**20:.1f} MB, more than {MAX_OUTPUT_BYTES // 2**20}; print less"
    if isinstance(code, str):
        return f"is no Python: {code}"
    if errors:
        return f"ends with an error, {one_line(errors[0].get('ename'))}: {one_line(errors[0].get('evalue'))}"
    if given.count is not None and not given.text.strip() and (line := _prints(*code)):
        return f"its output is missing: `{line}` prints something"
    return ""


def _parsed(source: str) -> tuple[str, ast.Module] | str:
    """Return the code of a cell, with its magics as Python, and its tree; or what is wrong with it."""
    manager = load_library("IPython.core.inputtransformer2").TransformerManager()
    try:
        text = str(manager.transform_cell(source))
        return text, ast.parse(text)
    except SyntaxError as error:
        return f"{error.msg} (line {error.lineno})"
    except (ValueError, MemoryError, RecursionError) as error:
        return one_line(error) or type(error).__name__


def _prints(text: str, tree: ast.Module) -> str:
    """Return the first line at the top of a cell that always prints, or nothing."""
    called = [_name(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    for call in calls if "clear_output" not in called else ():
        ours = isinstance(call.func, ast.Attribute) and _name(call.func.value) == "lesson" and call.func.attr in OURS
        to_output = not any(word.arg == "file" for word in call.keywords)
        if ours or (isinstance(call.func, ast.Name) and call.func.id == "print" and to_output and _shows(call)):
            return one_line(ast.get_source_segment(text, call))
    return ""


def _name(function: ast.expr) -> str:
    """Return the name by which something is called, without the module before it."""
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def _shows(call: ast.Call) -> bool:
    """Whether the first thing printed is a text that is not blank; what else is printed may be."""
    first = call.args[0] if call.args else None
    return isinstance(first, ast.JoinedStr) or (isinstance(first, ast.Constant) and bool(str(first.value).strip()))
