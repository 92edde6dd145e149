"""What a run was made with: versions, machine, commit. Recorded, never sent anywhere."""

import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NETWORK_FILESYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "fuse.sshfs")
"""Kinds on which what one machine appended may be seen late by another."""


def describe_environment() -> dict[str, Any]:
    """Return versions of Python and the packages that decide results, the platform, and the commit of the working folder."""
    return {
        "python": platform.python_version(),
        "packages": {name: found for name in ("firstlight", "torch", "numpy") if (found := _version(name))},
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git": git_commit(Path.cwd()),
    }


@cache
def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or platform.machine()
    )


def network_filesystem(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Return the kind of the network file system that holds a path, such as `nfs4`; None for a local one, or where nothing says."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return None
    place, found = path.resolve(), [(Path(_unescaped(words[1])), words[2]) for words in lines if len(words) > 2]
    holding = [(len(folder.parts), number, kind) for number, (folder, kind) in enumerate(found) if place.is_relative_to(folder)]
    kind = max(holding, default=(0, 0, ""))[2]  # of several mounts on one folder the last, which hides the others
    return kind if kind in NETWORK_FILESYSTEMS else None


def _unescaped(text: str) -> str:
    """Return a path of the list of mounts, in which blanks are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def git_commit(folder: Path) -> dict[str, Any] | None:
    """Return `{"commit": ..., "changed": bool}` of the repository around `folder`, or None where there is none."""
    commit, status = (_git(folder, *words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no")))
    return None if commit is None else {"commit": commit, "changed": bool(status)}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it; a mere folder of that name, such as wandb makes, is none."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
