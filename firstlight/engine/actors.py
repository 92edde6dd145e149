"""One training in several ranks on a Ray cluster: actors that get their places all at once, each with a rank as its child process.

An actor does what torchrun's agent does: it sets the environment that torchrun sets, starts the command `train`, and hands over what it
says. Reading order: train_in_actors, Gang, Agent.
"""

import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from firstlight.engine.ray_cluster import LAUNCH, Cluster
from firstlight.engine.signals import StopRequest, stop_requests
from firstlight.errors import ConfigError, LostRankError
from firstlight.tracking.console import Console

PLACE_SECONDS = 30.0
"""How long the cluster has to find a place for all ranks at once."""
LOOK_SECONDS = 0.3
"""Longest wait of an actor for news of its rank."""
END_SECONDS = 8.0
"""Time that the other ranks have to save and leave once one is lost, or a second Ctrl-C came."""
KILL_SECONDS = 3.0
"""Time that the actors have to kill ranks that did not."""
RANK = "from firstlight.engine.actor_rank import end_with_actor; end_with_actor(); from firstlight.__main__ import main; main()"
"""The program of a rank: the command `firstlight`, which ends where its actor does."""


def train_in_actors(words: Sequence[str], num_ranks: int | None, *, device: str, run: str, console: Console) -> int:
    """Train by `firstlight WORDS` in so many ranks on the Ray cluster, print what they say, and return the exit code.

    num_ranks: by default one a GPU of the cluster. device: device.name of the config, which says whether a rank gets a GPU. run: as
    --resume takes it. Raises ConfigError where the cluster has no place for all of them, and LostRankError where nobody else is left to
    say what was saved.
    """
    cluster = Cluster(instead="start the ranks with torchrun")
    try:
        total = cluster.ray.cluster_resources()
        kind = "GPU" if device == "cuda" or (device == "auto" and total.get("GPU", 0) >= 1) else "CPU"
        if num_ranks is None and kind == "CPU":
            raise ConfigError(f"the Ray cluster lends {total.get('CPU', 0):g} CPUs and no GPU to ranks; add --ranks N")
        gang = Gang(cluster, _places_for_all(cluster.ray, num_ranks or int(total.get("GPU", 0)), kind), kind, console)
        try:
            gang.start(words)
            with stop_requests(quiet=True) as stop:
                return gang.watch(stop, run)
        finally:
            gang.close()
    finally:
        cluster.close()


def _places_for_all(ray: Any, num: int, kind: str) -> Any:
    """Return a placement group with a place for each rank: all or none."""
    bundle = {"CPU": 1.0} if kind == "CPU" else {"CPU": 1.0, "GPU": 1.0}
    total = ray.cluster_resources()
    for name in bundle:
        if total.get(name, 0) < num:
            there = f"{total.get(name, 0):g} {name}{'' if total.get(name, 0) == 1 else 's'}"
            raise ConfigError(f"{num} ranks need a {name} each, and the Ray cluster has {there}; set --ranks lower, or add machines to it")
    group = ray.util.placement_group([bundle] * num, strategy="PACK")
    if not group.wait(PLACE_SECONDS):
        free = ray.available_resources()
        ray.util.remove_placement_group(group)
        listed = ", ".join(f"{free.get(name, 0):g} of {total[name]:g} {name}s free" for name in bundle)
        wanted = " and ".join(f"a {name}" for name in bundle)
        raise ConfigError(
            f"{num} ranks need {wanted} each at once, which the Ray cluster did not have within {PLACE_SECONDS:.0f} s ({listed}); "
            f"wait for what else runs there, or set --ranks lower"
        )
    return group


class Gang:
    """The actors of one training, seen from the command that started it."""

    def __init__(self, cluster: Cluster, group: Any, kind: str, console: Console) -> None:
        self._ray, self._group, self._console, self._stdout = cluster.ray, group, console, cluster.stdout
        ray, num = cluster.ray, group.bundle_count
        strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        make = ray.remote(num_cpus=1, num_gpus=int(kind == "GPU"), max_restarts=0, max_task_retries=0)(Agent)
        self._agents = [make.options(scheduling_strategy=strategy(group, rank)).remote() for rank in range(num)]
        self._codes: dict[int, int] = {}
        self._lost: dict[int, str] = {}
        self._said = False
        """Whether a rank said an error."""

    def start(self, words: Sequence[str]) -> None:
        """Start a rank in each actor."""
        num = len(self._agents)
        try:
            points = self._ray.get([agent.meeting_point.remote() for agent in self._agents])
            address = "127.0.0.1" if len({address for address, _ in points}) == 1 else points[0][0]
            shared = {name: value for name, value in os.environ.items() if name.startswith("FIRSTLIGHT_")}
            shared |= {"WORLD_SIZE": str(num), "MASTER_ADDR": address, "MASTER_PORT": str(points[0][1])}
            shared |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}  # Ray shows an actor its own GPU alone
            shared[LAUNCH] = f"--workers ray --ranks {num}"
            folder, places = str(Path.cwd()), [{**shared, "RANK": str(rank)} for rank in range(num)]
            self._ray.get([agent.start.remote(list(words), folder, place) for agent, place in zip(self._agents, places, strict=True)])
        except self._ray.exceptions.RayTaskError as error:
            raise ConfigError(str(error.cause)) from None
        except self._ray.exceptions.RayError as error:
            raise LostRankError(f"an actor died before the training began ({_last_line(error)}); give the command again") from None

    def watch(self, stop: StopRequest, run: str) -> int:
        """Print what the ranks say until all have ended, and return the exit code of the training. run: as --resume takes it."""
        pending: dict[Any, int] = {}
        told, deadline = False, math.inf
        while (there := self._there()) and time.monotonic() < deadline:
            try:
                pending |= {self._agents[rank].news.remote(): rank for rank in there if rank not in pending.values()}
                for answer in self._ray.wait(list(pending), num_returns=1, timeout=LOOK_SECONDS)[0]:
                    self._hear(pending.pop(answer), answer)
                if stop.asked and not told:
                    told = True
                    self._pass_on(stop)
            except KeyboardInterrupt:  # a second one
                self._pass_on(stop)
                deadline = min(deadline, time.monotonic() + END_SECONDS)
            if deadline == math.inf and (self._lost or any(self._codes.values())):
                deadline = time.monotonic() + END_SECONDS
        return self._exit_code(run)

    def close(self) -> None:
        """End the actors, and the ranks that have not ended."""
        if rest := [self._agents[rank].end.remote() for rank in self._there()]:
            self._ray.wait(rest, num_returns=len(rest), timeout=KILL_SECONDS)
        for agent in self._agents:
            self._ray.kill(agent)
        self._ray.util.remove_placement_group(self._group)

    def _there(self) -> list[int]:
        """Return the ranks that have not ended and were not lost."""
        return [rank for rank in range(len(self._agents)) if rank not in self._codes and rank not in self._lost]

    def _hear(self, rank: int, answer: Any) -> None:
        """Print what a rank said, and note its end."""
        try:
            lines, code = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            self._lost[rank] = type(error).__name__
            self._console.warn(
                f"the Ray actor of rank {rank} was killed, or its machine is down ({self._lost[rank]}); the others save and end"
            )
            return
        for stream, line in lines:
            self._said |= line.startswith("error: ")
            with suppress(OSError, ValueError):  # the terminal is gone: the log has it all
                print(line, file=self._stdout if stream == "out" else sys.stderr, flush=True)
        if code is not None:
            self._codes[rank] = code

    def _pass_on(self, stop: StopRequest) -> None:
        """Give a signal to the first rank that is there; it tells the others."""
        for rank in self._there()[:1]:
            self._agents[rank].pass_on.remote(stop.signal_number)

    def _exit_code(self, run: str) -> int:
        if self._lost:
            if not self._said:
                raise LostRankError(
                    f"rank {', '.join(map(str, sorted(self._lost)))} was lost with its Ray actor, and no other could say what was saved; "
                    f"go on with: firstlight train --resume {shlex.quote(run)} --workers ray"
                )
            return LostRankError("").exit_code
        ended = [code for code in self._codes.values() if code]
        if len(self._codes) < len(self._agents):
            return ended[0] if ended else 1
        return next((code for code in ended if code > 0), 128 - ended[0] if ended else 0)


def _last_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class Agent:
    """The actor: starts a rank, hands over what it says, passes signals on. The rank ends where the actor does."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal of the driver is for the driver
        self._process: subprocess.Popen[str] | None = None
        self._said: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._readers: list[threading.Thread] = []

    def meeting_point(self) -> tuple[str, int]:
        """Return an address of this machine and a free port, where the ranks meet."""
        import ray

        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        with socket.socket() as free:
            free.bind(("", 0))
            return address, free.getsockname()[1]

    def start(self, words: list[str], folder: str, environment: Mapping[str, str]) -> None:
        """Start `firstlight WORDS` in a folder. Raises ConfigError where it is not on this machine."""
        if not Path(folder).is_dir():
            raise ConfigError(
                f"rank {environment['RANK']}: no folder {folder} on its machine; start in a folder that all machines of the cluster have"
            )
        self._process = subprocess.Popen(
            [sys.executable, "-c", RANK, *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        for name, stream in (("out", self._process.stdout), ("err", self._process.stderr)):
            self._readers.append(threading.Thread(target=self._read, args=(name, stream), daemon=True))
            self._readers[-1].start()

    def news(self) -> tuple[list[tuple[str, str]], int | None]:
        """Return the lines that the rank said since the last call, waiting a little for one, and its exit code once it has ended."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LOOK_SECONDS)
        code = self._process.poll()
        if code is not None:
            for reader in self._readers:
                reader.join(1)
        lines = []
        with suppress(Empty):
            while True:
                lines.append(self._said.get_nowait())
        return lines, code

    def pass_on(self, number: int) -> None:
        """Give the rank a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        """Kill the rank."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _read(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._said.put((name, line.rstrip("\n")))
