"""Twenty hand-ins of the lesson in tests/fixtures/lessons, made from one that ran: ten good in honest ways, ten spoilt each in another."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from firstlight.notebooks.bundle import install_text
from firstlight.notebooks.source import Source, read_source
from firstlight.notebooks.student import to_notebook

LESSON = Path(__file__).parents[1] / "fixtures" / "lessons" / "01_means.py"
Notebook = dict[str, Any]


def lesson() -> Source:
    return read_source(LESSON)


def student() -> Notebook:
    """The notebook as students get it."""
    return json.loads(json.dumps(to_notebook(lesson(), student=True)))


def find(notebook: Notebook, what: str) -> dict[str, Any]:
    """The first cell with these words in it."""
    return next(cell for cell in notebook["cells"] if what in cell["source"])


def printed(cell: dict[str, Any], *texts: str) -> dict[str, Any]:
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text} for text in texts]
    return cell


def numbered(notebook: Notebook) -> Notebook:
    """Give the cells the execution counts of one run from top to bottom."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["source"].strip()]
    for count, cell in enumerate(code, 1):
        cell["execution_count"] = count
    return notebook


def code_cell(source: str, *texts: str) -> dict[str, Any]:
    return printed({"cell_type": "code", "id": "extra", "metadata": {}, "execution_count": 1, "source": source, "outputs": []}, *texts)


MEAN = """def mean(values):
    \"\"\"Return the mean of the values.\"\"\"
    # YOUR CODE HERE
    raise NotImplementedError()"""


def as_it_was(made: Notebook) -> None:
    """Nothing but what the student writes."""


def more_cells(made: Notebook) -> None:
    """B18 among them: a program that is called from a cell."""
    call = "import sys\n\n!{sys.executable} -c 'print(6 * 7)'"
    made["cells"][2:2] = [code_cell("print(max(heights))", "2.0\n"), code_cell("%timeit -n 1 -r 1 sum(heights)"), code_cell("")]
    made["cells"].append(code_cell(call, "42\n"))
    printed(made["cells"][3], "1.2 µs ± 0 ns per loop (mean ± std. dev. of 1 run, 1 loop each)\n")
    numbered(made)


def more_words(made: Notebook) -> None:
    made["cells"].insert(1, {"cell_type": "markdown", "id": "words", "metadata": {}, "source": "My notes: **sum**, then share."})
    made["cells"].append({"cell_type": "raw", "id": "raw", "metadata": {}, "source": "the end"})
    made["cells"][0]["source"] += "\n\n(done on Monday)"


def long_answer(made: Notebook) -> None:
    cell = find(made, "When does a mean say little?")
    cell["source"] = "When does a mean say little?\n\n*Write your answer here.*\n\nIncomes: one billionaire moves it.\n\n- use the median"


def other_solution(made: Notebook) -> None:
    find(made, "def mean")["source"] = MEAN.replace("raise NotImplementedError()", "import statistics\n    return statistics.fmean(values)")


def solution_in_two_functions(made: Notebook) -> None:
    find(made, "def mean")["source"] = (
        "def total(values):\n    return sum(values)\n\n\ndef mean(values):\n    return total(values) / len(values)\n"
    )
    find(made, "guess =")["source"] = "# between 1.25 and 2\nguess = 1.7"
    printed(find(made, '"you said"'), "you said 1.7 and it is 1.625\n")


def windows_line_ends(made: Notebook) -> None:
    for cell in made["cells"]:
        cell["source"] = cell["source"].replace("\n", "  \r\n") + "\r\n\r\n" if cell["cell_type"] == "code" else cell["source"] + "  "


def from_vs_code(made: Notebook) -> None:
    made["metadata"] = {
        "firstlight": made["metadata"]["firstlight"],
        "kernelspec": {"display_name": ".venv (3.12.4)", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "version": "3.12.4", "file_extension": ".py", "mimetype": "text/x-python"},
    }
    for cell in made["cells"]:
        cell["metadata"] |= {"vscode": {"languageId": "python"}}
        cell["source"] = cell["source"].splitlines(keepends=True)


def from_colab(made: Notebook) -> None:
    """From our own bundle: its first cell mounts a folder that is not here, and installs firstlight."""
    made["metadata"] = {
        "colab": {"provenance": []},
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    for cell in made["cells"]:
        cell["metadata"] = {**cell["metadata"], "id": "Xy12", "colab": {"base_uri": "https://localhost:8080/"}, "outputId": "ab-12"}
    said = "data: /content/drive/MyDrive/firstlight/data\nruns and pictures: /content/drive/MyDrive/firstlight/work\n"
    made["cells"].insert(0, code_cell(install_text("firstlight-0.1.0-py3-none-any.whl"), "Mounted at /content/drive\n", said))
    numbered(made)


def old_format(made: Notebook) -> None:
    """nbformat 4.4 as an older tool writes it: no ids, no metadata of ours, lines of output one by one."""
    made["nbformat_minor"] = 4
    made["metadata"] = {"kernelspec": made["metadata"]["kernelspec"], "language_info": {"name": "python", "version": "3.11.2"}}
    for cell in made["cells"]:
        del cell["id"]
        cell["metadata"] = {}
        for output in cell.get("outputs", []):
            output["text"] = output["text"].splitlines(keepends=True)


GOOD: dict[str, Callable[[Notebook], None]] = {
    function.__name__: function
    for function in (
        as_it_was,
        more_cells,
        more_words,
        long_answer,
        other_solution,
        solution_in_two_functions,
        windows_line_ends,
        from_vs_code,
        from_colab,
        old_format,
    )
}


def out_of_order(made: Notebook) -> None:
    first, second = find(made, '"heights"'), find(made, "tallest")
    first["execution_count"], second["execution_count"] = second["execution_count"], first["execution_count"]


def missing_output(made: Notebook) -> None:
    find(made, '"mean height:"')["outputs"] = []


def stale_output(made: Notebook) -> None:
    printed(find(made, '"mean height:"'), "mean height: 1.5\n")


def error_hidden(made: Notebook) -> None:
    find(made, "assert mean")["metadata"]["tags"] = ["raises-exception"]
    find(made, "assert mean")["outputs"] = []


def cell_deleted(made: Notebook) -> None:
    made["cells"].remove(find(made, '"mean height:"'))
    numbered(made)


def tampered_check(made: Notebook) -> None:
    cell = find(made, "assert mean")
    cell["source"] = cell["source"].replace("assert mean([1, 2, 3, 6]) == 3", "assert mean([3]) == 3")


def random_numbers(made: Notebook) -> None:
    made["cells"].append(code_cell("import random\n\nprint(random.randrange(10**9))", "812345678\n"))
    numbered(made)


def huge_output(made: Notebook) -> None:
    made["cells"].append(code_cell("print('x' * 3_000_000)", "x" * 3_000_000 + "\n"))
    numbered(made)


def other_kernel(made: Notebook) -> None:
    made["metadata"]["kernelspec"] = {"display_name": "R", "language": "R", "name": "ir"}
    made["metadata"]["language_info"] = {"name": "R"}


def empty_answer(made: Notebook) -> None:
    find(made, "When does a mean say little?")["source"] = "When does a mean say little?\n\n*Write your answer here.*\n\n   ...\n"


SPOILT: dict[str, tuple[Callable[[Notebook], None], str]] = {
    function.__name__: (function, told)
    for function, told in (
        (out_of_order, "cell 2: ran as number 8 and not as number 1"),
        (missing_output, "cell 9: its output is missing"),
        (stale_output, "cell 9: its output is stale: `mean height: 1.5`, and `mean height: 1.625` in a new run"),
        (error_hidden, "cell 8 (check mean): hides errors: it has the tag raises-exception"),
        (cell_deleted, 'cell 9 of the lesson: was deleted: `print("mean height:", mean(heights))`'),
        (tampered_check, "cell 8 (check mean): was changed: `assert mean([1, 2, 3, 6]) == 3"),
        (random_numbers, "cell 13: prints something else each time"),
        (huge_output, "cell 13: its outputs take 2.9 MB, more than 2"),
        (other_kernel, "the notebook: was run by another kernel (r), and not by Python"),
        (empty_answer, "cell 12 (answer why): has no answer"),
    )
}
ONLY_A_RUN_TELLS = ("stale_output", "random_numbers")


def handed_in(change: Callable[[Notebook], None]) -> Notebook:
    """A student's notebook, filled in, run, and changed."""
    made = copy.deepcopy(student())
    find(made, "guess =")["source"] = "guess = 1.6"
    find(made, "def mean")["source"] = MEAN.replace("raise NotImplementedError()", "return sum(values) / len(values)")
    find(made, "When does a mean say little?")["source"] = "When does a mean say little?\n\nWith outliers."
    printed(find(made, '"heights"'), "4 heights\n")
    printed(find(made, '"you said"'), "you said 1.6 and it is 1.625\n")
    printed(find(made, "assert mean"), "mean is right\n")
    printed(find(made, '"mean height:"'), "mean height: 1.625\n")
    printed(find(made, '"now:"'), "now: 1700000000.5\n")
    change(numbered(made))
    return made


def write(folder: Path, made: Notebook, name: str = "hand_in") -> Path:
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps(made), encoding="utf-8")
    return path
