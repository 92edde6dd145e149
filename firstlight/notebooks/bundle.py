"""Several lessons as one archive, with firstlight itself: for any computer, or for Colab with data and runs in a mounted folder."""

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

from firstlight.errors import ConfigError
from firstlight.files import write_bytes
from firstlight.notebooks.source import Source, find_lessons, load_library, read_source
from firstlight.notebooks.student import INSTALL_LINE, blank_source, to_notebook

MADE = (2020, 1, 1, 0, 0, 0)
"""The date of every file in an archive: the same lessons give the same bytes."""

PLAIN = """firstlight: lessons as notebooks

You need Python 3.11.4 or newer, on Linux, macOS or Windows. In a terminal, in this folder:

Linux and macOS:
    python3 -m venv .venv
    .venv/bin/pip install "{wheel}[lessons]" jupyterlab
    .venv/bin/jupyter lab lessons

Windows (PowerShell):
    py -m venv .venv
    .venv\\Scripts\\pip install "{wheel}[lessons]" jupyterlab
    .venv\\Scripts\\jupyter lab lessons

The lessons run on MNIST where it is: `.venv/bin/firstlight data fetch mnist` gets it once (Windows: .venv\\Scripts\\firstlight). Without it
they run on small digits that come along.

Yours are the cells with `guess = None`, with `# YOUR CODE HERE` and with *Write your answer here.* The check behind an exercise says what
is wrong with it. Before you hand in: Kernel, Restart Kernel and Run All Cells, then save, and see what your instructor will see:
    .venv/bin/firstlight lessons check lessons/NAME.ipynb

{table}
"""

COLAB = """firstlight: lessons for Colab

1. Unpack this archive on your computer.
2. Put the folder `firstlight` into your Google Drive, at the top (My Drive/firstlight).
3. Open a notebook in firstlight/lessons with Colab, and run its first cell. It asks to mount your Drive, and installs firstlight.

Data go into firstlight/data, pictures and runs into firstlight/work: both are in your Drive and are there after a restart. Then run the
first cell again. Put MNIST's files into firstlight/data/MNIST to save a download. Kept elsewhere than My Drive/firstlight? Change FOLDER
in the first cell.
Before you hand in: Runtime, Restart session and run all, then save.

{table}
"""

INSTALL = """import importlib.util
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("FIRSTLIGHT_FOLDER", "/content/drive/MyDrive/firstlight"))
if importlib.util.find_spec("google") and importlib.util.find_spec("google.colab"):
    from google.colab import drive

    drive.mount("/content/drive")
assert FOLDER.is_dir(), f"no folder {{FOLDER}}: put the bundle's folder there, or change FOLDER above"
wheel = FOLDER / "{wheel}"
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", str(wheel)], check=True)
importlib.invalidate_caches()
os.environ.setdefault("FIRSTLIGHT_DATA", str(FOLDER / "data"))
for name in ("data", "work"):
    (FOLDER / name).mkdir(exist_ok=True)
os.chdir(FOLDER / "work")
print("data:", os.environ["FIRSTLIGHT_DATA"])
print("runs and pictures:", Path.cwd())
"""


def write_bundle(sources: Sequence[Source], out: Path, *, kind: Literal["zip", "colab"]) -> Path:
    """Write the students' notebooks, firstlight itself as a wheel and a README into one archive, and return its path.

    All is in one folder `firstlight`; names are ASCII, short, and allowed on Windows and macOS. In Colab's version each notebook begins
    with a cell that mounts the folder and installs the wheel from it.
    """
    wheel_name, wheel = make_wheel()
    table = "\n".join(f"{source.name}.ipynb  {source.title} ({source.minutes:g} min)" for source in sources)
    text = (PLAIN if kind == "zip" else COLAB).format(wheel=wheel_name, table=table)
    contents = {"README.txt": text.replace("\n", "\r\n").encode(), wheel_name: wheel}
    for source in sources:
        notebook = to_notebook(source, student=True)
        if kind == "colab":
            notebook.cells.insert(0, _install_cell(source, wheel_name))
        contents[f"lessons/{source.name}.ipynb"] = (load_library("nbformat").writes(notebook) + "\n").encode()
    path = out / f"firstlight-{'lessons' if kind == 'zip' else 'colab'}.zip"
    write_bytes(path, _archive({f"firstlight/{name}": content for name, content in contents.items()}))
    return path


def make_wheel() -> tuple[str, bytes]:
    """Return this firstlight as a wheel, its name and its bytes: the package as it runs here, and the lessons without their solutions.

    No build tool is needed.
    """
    try:
        installed = distribution("firstlight")
    except PackageNotFoundError:
        raise ConfigError("firstlight is not installed, so it cannot be packed; pip install . in its folder, then build again") from None
    version = installed.version
    info, package = f"firstlight-{version}.dist-info", Path(__file__).parents[1]
    contents = {f"firstlight/{path.relative_to(package).as_posix()}": path.read_bytes() for path in _package_files(package)}
    place = f"firstlight-{version}.data/data/share/firstlight/lessons"
    contents |= {f"{place}/{path.name}": blank_source(read_source(path)).encode() for path in find_lessons()}
    contents[f"{info}/METADATA"] = (installed.read_text("METADATA") or installed.read_text("PKG-INFO") or "").encode()
    contents[f"{info}/entry_points.txt"] = b"[console_scripts]\nfirstlight = firstlight.__main__:main\n"
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: firstlight\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return f"firstlight-{version}-py3-none-any.whl", _archive(contents)


def _package_files(package: Path) -> Iterator[Path]:
    yield from (path for path in sorted(package.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)


def _digest(content: bytes) -> str:
    """Return the digest of a file as a wheel's RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _archive(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, MADE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def install_text(wheel_name: str) -> str:
    """Return the cell that mounts the folder in Colab and installs this wheel from it."""
    return f"{INSTALL_LINE}\n{INSTALL.format(wheel=wheel_name)}"


def _install_cell(source: Source, wheel_name: str) -> Any:
    cell = load_library("nbformat.v4").new_code_cell(install_text(wheel_name))
    cell.id = f"{source.name}-install"[:64]
    return cell
