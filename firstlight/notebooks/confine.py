"""Limits that a kernel puts upon itself before it runs a notebook of someone else: memory, writes in one folder, no network but loopback.

Where the system has them, the kernel of the system holds the limits (Linux: Landlock, a network namespace, rlimits). An audit hook of
Python holds them everywhere, less firmly, and says what was refused.
"""

import ctypes
import json
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

MEMORY_BYTES = 8 * 2**30
FILE_BYTES = 2**30
"""Size of a file that a notebook may write."""
DEVICES = ("null", "zero", "full", "random", "urandom", "ptmx")
SHARED_MEMORY = Path("/dev/shm")
"""Python's locks between processes and PyTorch's workers write there."""
LOOPBACK = ("localhost", "127.0.0.1", "::1", "", "0.0.0.0", "::")

RULESET, RULE, RESTRICT = 444, 445, 446
"""System calls of Landlock, the same on every processor."""
WRITE_FILE, TRUNCATE, REFER = 1 << 1, 1 << 14, 1 << 13
CHANGES = WRITE_FILE | sum(1 << bit for bit in range(4, 13))
"""Rights to write, remove and make files, folders, sockets and links (linux/landlock.h)."""
SCOPES = 1 << 0 | 1 << 1
"""Abstract sockets and signals, which then reach no process outside (Linux 6.12)."""
NEW_USER, NEW_NET, NEW_MOUNTS = 0x10000000, 0x40000000, 0x00020000
NO_NEW_PRIVILEGES, DEATH_SIGNAL = 38, 1

PATHS_OF = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1, "os.chmod": 1, "os.chown": 1, "os.utime": 1}
PATHS_OF |= {"os.rename": 2, "os.link": 2, "sqlite3.connect": 1}
"""Events of Python's audit, and how many of their first arguments are paths that change."""


def confine(folder: Path, log: Path) -> None:
    """Keep this process and its children within `folder`, for good; call it before the first thread starts.

    log: gets a line of JSON, a text, for each thing that the audit hook refused.
    """
    told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _limit_sizes()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        _leave_network(libc)
        _lock_files(libc, folder)
    _refuse(os.path.realpath(folder), told)


def _limit_sizes() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        os.nice(5)
        for what, most in ((resource.RLIMIT_DATA, MEMORY_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES), (resource.RLIMIT_CORE, 0)):
            hard = resource.getrlimit(what)[1]
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _leave_network(libc: Any) -> None:
    """Move into a network of our own, where there is loopback alone, and mounts of our own; nothing happens where that is not allowed."""
    user, group = os.getuid(), os.getgid()
    own_mounts = libc.unshare(NEW_USER | NEW_NET | NEW_MOUNTS) == 0
    if not own_mounts and libc.unshare(NEW_USER | NEW_NET) != 0:
        return
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with suppress(OSError):
            descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(descriptor, text.encode())
            os.close(descriptor)
    if own_mounts:  # a command behind `!` needs a terminal, and gets one apart from those of the user
        libc.mount(b"devpts", b"/dev/pts", b"devpts", 0, b"newinstance,ptmxmode=0666")
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        import fcntl

        up, set_flags = 1, 0x8914
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14x", b"lo", up))


def _lock_files(libc: Any, folder: Path) -> None:
    """Let the kernel refuse every change outside of the folder, and signals to processes that are not ours (Landlock)."""
    abi = libc.syscall(RULESET, None, 0, 1)
    if abi < 1:
        return
    changes = CHANGES | (REFER if abi >= 2 else 0) | (TRUNCATE if abi >= 3 else 0)
    attributes = struct.pack("QQQ", changes, 0, SCOPES if abi >= 6 else 0)
    ruleset = libc.syscall(RULESET, attributes, 24 if abi >= 6 else 8, 0)
    allowed = {folder: changes, SHARED_MEMORY: changes, **dict.fromkeys([*_devices(), Path("/dev/pts")], WRITE_FILE | (changes & TRUNCATE))}
    for path, rights in allowed.items():
        with suppress(OSError):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            libc.syscall(RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0)
            os.close(descriptor)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.syscall(RESTRICT, ruleset, 0)
    os.close(ruleset)


def _devices() -> list[Path]:
    """Return the devices that a notebook may write: no disks, and no terminals of others."""
    return [*(Path("/dev") / name for name in DEVICES), *Path("/dev").glob("nvidia*")]


def _refuse(folder: str, told: int) -> None:
    inside = (folder + os.sep, str(SHARED_MEMORY) + os.sep)
    devices = {os.path.realpath(path) for path in (os.devnull, *map(str, _devices()))}
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def refuse(what: str) -> None:
        os.write(told, (json.dumps(what[:500]) + "\n").encode())
        raise PermissionError(what)

    def check_path(path: Any, does: str = "writes") -> None:
        if isinstance(path, int) or path in (None, ":memory:", b":memory:"):
            return
        real = os.path.realpath(os.fsdecode(path))
        if real != folder and real not in devices and not real.startswith(inside):
            refuse(f"it {does} outside of its folder ({os.fsdecode(path)})")

    def check_host(address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else address
        host = host.decode() if isinstance(host, bytes) else host
        if isinstance(address, tuple | str | None) and host is not None and host not in LOOPBACK and not str(host).startswith("127."):
            refuse(f"it asks the network ({host})")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & writing:
            check_path(arguments[0])
        elif event in PATHS_OF:
            for path in arguments[: PATHS_OF[event]]:
                check_path(path)
        elif event == "os.symlink":
            check_path(arguments[1])
        elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
            check_host(arguments[1])
        elif event in ("socket.connect", "socket.sendto") and arguments[1] and arguments[1][0] not in ("\0", 0):
            check_path(arguments[1], "asks a program")
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            check_host(arguments[0])

    sys.addaudithook(hook)
