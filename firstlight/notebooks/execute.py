"""Run a notebook in a kernel of its own and write it with its outputs; rerun.py starts it as a child.

`python -m firstlight.notebooks.execute IN OUT FOLDER [--confined LOG]` stops at the first cell that fails. It prints a line of JSON for
each cell that begins, and at the end one that names the error.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from firstlight.files import write_text


def execute(notebook: Any, folder: Path, *, kernel: list[str], tell: Any) -> dict[str, Any] | None:
    """Run the cells in order, in `folder`; outputs are put into the notebook. Return the cell and the error that ended it, or None.

    kernel: command line of the kernel, with {connection_file}. tell: called with the number of each code cell that begins.
    """
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    class Here(KernelSpecManager):
        """Knows one kernel: this Python, and not the one that a user's folder of kernels calls python3."""

        def get_kernel_spec(self, kernel_name: str) -> Any:
            return KernelSpec(argv=kernel, display_name="Python 3", language="python")

    at = {"cell": 0}

    def begin(cell: Any, cell_index: int) -> None:
        at["cell"] = cell_index + 1
        tell(cell_index + 1)

    places: dict[str, Any] = {} if os.name == "nt" else {"transport": "ipc", "ip": str(folder / "socket")}
    manager = AsyncKernelManager(kernel_spec_manager=Here(), **places)
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=None,
        coalesce_streams=True,
        record_timing=False,
        skip_cells_with_tag="",
        on_cell_execute=begin,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except CellExecutionError as error:
        return {"cell": at["cell"], "error": f"{error.ename}: {' '.join(error.evalue.split())}", "kind": error.ename}
    except DeadKernelError:
        return {"cell": at["cell"], "error": "the kernel died, perhaps out of memory", "kind": "DeadKernelError"}
    return None


def child_environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return what a kernel sees of the environment: where Python and its libraries are, no secrets; HOME and the like in `folder`."""
    kept = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "SYSTEMROOT", "CUDA_VISIBLE_DEVICES")
    homes = ("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")
    packages = os.pathsep.join(part for part in (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")) if part)
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        **dict.fromkeys((*homes, "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"), str(folder)),
        "PYTHONPATH": packages,
        "PYTHONDONTWRITEBYTECODE": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        **settings,
    }


def main() -> None:
    """Run one notebook."""
    nbformat: Any = import_module("nbformat")
    parser = argparse.ArgumentParser(prog="python -m firstlight.notebooks.execute", description="Run a notebook in a kernel of its own.")
    for name in ("source", "target", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--confined", type=Path, metavar="LOG", help="keep the kernel within the folder; what is refused goes to LOG")
    given = parser.parse_args()
    limits = ["firstlight.notebooks.kernel", str(given.folder), str(given.confined)] if given.confined else ["ipykernel_launcher"]
    kernel = [sys.executable, "-m", *limits, "-f", "{connection_file}"]
    notebook = nbformat.reads(given.source.read_text(encoding="utf-8"), as_version=4)
    ended = execute(notebook, given.folder, kernel=kernel, tell=lambda number: print(json.dumps({"cell": number}), flush=True))
    notebook.metadata.pop("language_info", None)  # it names this machine's version of Python
    notebook.metadata["language_info"] = {"name": "python"}
    write_text(given.target, nbformat.writes(notebook))
    print(json.dumps({"ended": ended}), flush=True)


if __name__ == "__main__":
    main()
