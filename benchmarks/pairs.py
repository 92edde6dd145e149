"""The protocol of every ratio: two arms in processes of their own take turns, A B A B, and each pair gives one ratio.

Reading order: Child, take_pairs, Pairs, measure. The children live in the peers' environment (.venv-peers, made by `make bench`), both
of them, so that they share an interpreter and a torch; firstlight is imported there from the checkout. benchmarks/turns.py is their side.
A child of a pair sleeps on stdin while the other one works.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import Row, machine, number, refuse_when_busy, write_result

ROOT = Path(__file__).parents[1]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
LEAST_PAIRS = 5

QUIET = {
    "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DISABLE_GIT": "true", "WANDB_ERROR_REPORTING": "false",
    "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore",
}  # fmt: skip
"""No peer asks the network or prints, and none looks for a graphics card that the other arm would not use."""


def child_environment(threads: int) -> dict[str, str]:
    """Return the environment of a child: quiet, firstlight from the checkout, every thread pool at `threads`."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS")
    return {**os.environ, **QUIET, "PYTHONPATH": str(ROOT), **dict.fromkeys(pools, str(threads))}


class Child:
    """One arm. Its first answer, behind the warm-up, is kept as `ready`; turn() asks for one more repetition.

    Leaves with a line where the process ends without an answer; what it said on stderr has then been printed.
    """

    def __init__(self, name: str, command: Sequence[str], *, threads: int = 1) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=child_environment(threads)
        )
        self.ready = self._answer()

    def turn(self) -> dict[str, Any]:
        """Let the arm do one repetition and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process by closing its pipes, and wait for it."""
        with self._process:
            pass

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise ArmError(
                f"the process of {self.name} ended with code {self._process.returncode} before it answered; stderr above says why"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


class ArmError(Exception):
    """An arm that cannot be measured: it ended, or it does other work than ours."""


def cost(answer: dict[str, Any], clock: str = "seconds") -> float:
    """Return the seconds that one unit (a step, an image, a scalar) took in a repetition."""
    return float(answer[clock]) / float(answer["count"])


@dataclass(frozen=True)
class Pairs:
    """The costs of both arms, in the order in which they were taken; clock: "seconds", or "cpu_seconds" of all threads."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @classmethod
    def of(cls, answers: Sequence[tuple[dict[str, Any], dict[str, Any]]], clock: str = "seconds") -> "Pairs":
        """Take one clock out of pairs of answers."""
        return cls(tuple(cost(ours, clock) for ours, _ in answers), tuple(cost(theirs, clock) for _, theirs in answers))

    @property
    def times_faster(self) -> list[float]:
        """Their cost over ours, one number a pair."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def share(self) -> list[float]:
        """Our cost over theirs, one number a pair."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]


def take_pairs(ours: Child, theirs: Child, num_pairs: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Let two arms take turns, A B A B, and return their answers in pairs."""
    return [(ours.turn(), theirs.turn()) for _ in range(num_pairs)]


@contextmanager
def running(name: str, command: Sequence[str], *, threads: int) -> Iterator[Child]:
    """Start an arm, wait for its warm-up, and end it with the block."""
    child = Child(name, command, threads=threads)
    try:
        yield child
    finally:
        child.close()


@dataclass(frozen=True)
class Measured:
    """What came out of the pairs of one peer with firstlight."""

    answers: list[tuple[dict[str, Any], dict[str, Any]]]
    ours_ready: dict[str, Any]
    theirs_ready: dict[str, Any]
    guard: str

    def pairs(self, clock: str = "seconds") -> Pairs:
        """Return the costs by one clock."""
        return Pairs.of(self.answers, clock)


def measure(
    command: Callable[[str], Sequence[str]],
    peers: Sequence[str],
    *,
    num_pairs: int,
    threads: int,
    check: Callable[[dict[str, Any], dict[str, Any]], str],
    limit: str | None = None,
) -> dict[str, Measured]:
    """Measure firstlight against each peer (and against the arm that is its limit), each in pairs of its own.

    command: arm -> command line. check: guards of ours and theirs -> what was found equal; raises ArmError where the work differs.
    A peer that cannot be measured is reported on stderr and left out.
    """
    found: dict[str, Measured] = {}
    with running("firstlight", command("firstlight"), threads=threads) as ours:  # ArmError here ends the benchmark: nothing can be measured
        for name in [*peers, *([limit] if limit else [])]:
            try:
                with running(name, command(name), threads=threads) as theirs:
                    guard = "" if name == limit else check(ours.ready["guard"], theirs.ready["guard"])
                    found[name] = Measured(take_pairs(ours, theirs, num_pairs), ours.ready, theirs.ready, guard)
            except ArmError as error:
                print(f"left out: {name}: {error}", file=sys.stderr, flush=True)
                continue
            times = found[name].pairs().times_faster
            if name != limit:
                print(f"{name}: {statistics.median(times):.3g} x our cost, range {spread(times)}", file=sys.stderr, flush=True)
    return found


def equal_within(ours: dict[str, Any], theirs: dict[str, Any], *, tolerance: float) -> str:
    """Hold two guards against each other: whole numbers must be equal, others within a relative tolerance; return that in words."""
    said = []
    for key, mine in ours.items():
        other, what = theirs[key], key.replace("_", " ")
        same = mine == other if isinstance(mine, int) else abs(mine - other) <= tolerance * abs(mine)
        if not same:
            raise ArmError(f"it does other work: {what} {number(other)}, ours {number(mine)}")
        said.append(f"{number(mine)} {what}" if isinstance(mine, int) else f"{what} {number(mine)} and {number(other)}")
    return ", ".join(said)


def spread(values: Sequence[float]) -> str:
    """Return "least to most"."""
    return f"{number(min(values))} to {number(max(values))}"


def row(what: str, values: Sequence[float], unit: str, **more: Any) -> Row:
    """Return the median of the values as a row, with their range in the note. more: least, most, aim, limit, guard, note."""
    note = "; ".join(part for part in (f"range {spread(values)}", more.pop("note", "")) if part)
    return {"what": what, "value": statistics.median(values), "unit": unit, "n": len(values), "note": note, **more}


def limit_share(measured: Measured, *, units: int = 1) -> str:
    """Return how near we are to the limit measured beside us, as "x %"; units: what one of our counts is in counts of the limit."""
    return f"{100 * units * statistics.median(measured.pairs().times_faster):.3g} %"


def machine_of(measured: Mapping[str, Measured], *, threads: int, start: dict[str, Any]) -> dict[str, Any]:
    """Return what the record says of the machine, with the children's torch and threads in place of ours; start: of ready_to_measure."""
    every: dict[str, Any] = {}
    for one in measured.values():
        every |= one.ours_ready["versions"] | one.theirs_ready["versions"]
    every.pop("threads", None)
    every.pop("capability", None)
    return {**machine(), "threads": threads, "torch": every.pop("torch", "not imported"), "versions": every, **start}


def parser(doc: str | None, peers: Sequence[str], *, threads: int = 1, pairs: int = LEAST_PAIRS) -> argparse.ArgumentParser:
    """Return the command line that every line's script has."""
    words = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.set_defaults(all_peers=list(peers))
    words.add_argument("--force", action="store_true", help="measure on a busy machine too; the record says so")
    words.add_argument("--peers", type=_names(peers), default=list(peers), help=f"some of {','.join(peers)}")
    words.add_argument("--threads", type=int, default=threads, help=f"threads of each arm (default {threads})")
    words.add_argument("--pairs", type=int, default=pairs, help=f"pairs a peer, at least {LEAST_PAIRS} for a record (default {pairs})")
    return words


def ready_to_measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the record says of the start: the load, and whether it was overridden.

    Leaves with a line where the machine is busy or the peers' environment is not there.
    """
    refuse_when_busy(arguments.force)
    require_peers()
    return {"load": round(os.getloadavg()[0], 2), "forced": arguments.force}


def record(
    name: str,
    title: str,
    command: str,
    rows: Sequence[Row],
    measured: Mapping[str, Measured],
    arguments: argparse.Namespace,
    start: dict[str, Any],
) -> None:
    """Print the rows, and write results/<name>.json where all peers and enough pairs were asked for."""
    for each in rows:
        cells = (f"{each['what']}: {number(each['value'])} {each['unit']}", each.get("note"), each.get("guard"))
        limit = f"{each['limit']} of the limit" if each.get("limit") else None
        print("; ".join(cell for cell in (*cells, limit) if cell))
    if arguments.peers != arguments.all_peers or arguments.pairs < LEAST_PAIRS:
        print(f"not recorded: that takes all peers ({','.join(arguments.all_peers)}) and {LEAST_PAIRS} pairs or more")
        return
    print(write_result(name, title, command, rows, machine_of(measured, threads=arguments.threads, start=start)))


def require_peers() -> Path:
    """Return the peers' interpreter; leave with a line where there is none."""
    if not PEERS_PYTHON.is_file():
        sys.exit(f"the other frameworks are not installed in {PEERS_PYTHON.parents[1]}; run `make peers` (several GB)")
    return PEERS_PYTHON


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: unknown; known are {', '.join(known)}")
        return names

    return parse
