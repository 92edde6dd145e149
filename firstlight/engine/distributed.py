"""One training in several processes, by torchrun's environment: what they add up, what they agree on, and how they end together.

Each process is a rank. A batch is shared by all: every rank learns from its part, and the gradients are added up before each step, so
that all hold the same weights, those of one process. Rank 0 alone reads and writes the run folder, and speaks.
Reading order: joined, Ranks, its collectives, its end.
"""

import itertools
import json
import math
import os
import shlex
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from firstlight.data.loader import Shard
from firstlight.engine.ray_cluster import LAUNCH
from firstlight.engine.signals import StopRequest
from firstlight.errors import ConfigError, FirstlightError, LostRankError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets for each process."""
START_SECONDS = 300.0
"""How long a rank waits for the others to start."""
MISTAKE_SECONDS = 20.0
"""How long a rank with a mistake in its command waits for the others, who may have made the same."""
PREPARE_SECONDS = 1800.0
"""How long a rank waits for another that reads its data."""
SAY_SECONDS = 3.0
"""How long a rank that must end waits for another one to say why; a killed rank is noticed within this time."""
STOPS = (signal.SIGINT, signal.SIGTERM)
"""What asks for a stop; of both the later one counts."""
LAG = 2
"""Steps behind which a GPU's ranks look whether a stop was asked for, so that nobody waits for the device."""

Made = TypeVar("Made")


def ranks_in(environment: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Return rank, number of ranks, and rank on this machine; None for a process that trains alone. Raises ConfigError."""
    if environment.get("WORLD_SIZE", "1") == "1":
        return None
    if missing := [name for name in VARIABLES if name not in environment]:
        raise ConfigError(
            f"WORLD_SIZE says that several processes train together, but {', '.join(missing)} say nothing; start with torchrun"
        )
    try:
        rank, size, local_rank = (int(environment[name]) for name in VARIABLES[:3])
    except ValueError:
        said = ", ".join(f"{name}={environment[name]}" for name in VARIABLES[:3])
        raise ConfigError(f"{said}: these must be whole numbers; start with torchrun") from None
    if not 0 <= rank < size:
        raise ConfigError(f"RANK={rank} is not in 0..{size - 1}, which WORLD_SIZE={size} allows; start with torchrun")
    return rank, size, local_rank


@contextmanager
def joined(seconds: float = START_SECONDS) -> Iterator["Ranks | None"]:
    """Meet the other processes of this training for the block, and end as they do: one of them says why. None for a process alone.

    seconds: how long to wait for them.
    """
    place = ranks_in(os.environ)
    if place is None:
        yield None
        return
    ranks = Ranks(*place, PrefixStore(f"firstlight {restarts()} {next(_trainings)}", _meet(seconds)))
    try:
        yield ranks
    except FirstlightError as error:
        ranks.end(error)
    except Exception:
        ranks.note_end(1)
        raise
    ranks.close()


def restarts() -> int:
    """Return how often torchrun has started these ranks anew (--max-restarts); its store still has what they wrote before."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def said_by_one(error: FirstlightError) -> FirstlightError:
    """Return the error as this rank is to say it, where it came before the ranks met; leave where another one says it."""
    if _meet.cache_info().misses:  # they met and agreed who says it, or met nobody
        return error
    try:
        with joined(MISTAKE_SECONDS):
            raise error
    except FirstlightError:
        return error


@cache
def _meet(seconds: float = START_SECONDS) -> Store:
    """Return the store at MASTER_ADDR, once a process. Raises ConfigError where nobody is there."""
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store: Store = next(iter(rendezvous("env://", timeout=timedelta(seconds=seconds))))[0]
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"rank {os.environ['RANK']} met nobody at {place} ({reason}); start all ranks with torchrun") from None
    return store


_trainings = itertools.count()
"""One script may train several times: the n-th time of each process belong together."""


def agreed(ranks: "Ranks | None", key: str, make: Callable[[], Made]) -> Made:
    """Return what `make` makes: here in a process alone, else on rank 0, as plain data for all; `key` names it."""
    return make() if ranks is None else ranks.agree(key, make)


class Ranks:
    """The processes of one training, seen from one of them. Every collective call must be made by all, in the same order."""

    def __init__(self, rank: int, size: int, local_rank: int, store: Store) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.num_images = 0
        """Images of the batch that is being learned from, over all ranks."""
        self._store = store
        self._wait_seconds = START_SECONDS
        self._asked, self._agreed = StopRequest(), StopRequest()
        self._flags: deque[tuple[Tensor, Any]] = deque()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which reads and writes the run folder."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """Which part of each batch is this rank's."""
        return Shard(self.rank, self.size)

    def launch(self, words: Sequence[str]) -> str:
        """Return the line that starts a command of ours again in as many processes, ready to be pasted where all are on one machine."""
        if LAUNCH in os.environ:
            return shlex.join([*words, *shlex.split(os.environ[LAUNCH])])
        local = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        start = ["torchrun", "--nproc-per-node", str(local)] if local == self.size else ["torchrun", "..."]
        return shlex.join([*start, "-m", *words])

    # What is agreed before the processes can talk: plain data in the store.

    def agree(self, key: str, make: Callable[[], Made]) -> Made:
        """Return on all ranks what rank 0 makes, which must be plain data."""
        if self.leads:
            made = make()
            self._store.set(key, json.dumps(made))
            return made
        return json.loads(self._read(key))  # type: ignore[no-any-return]

    def compare(self, what: str, facts: Mapping[str, Any], differences: Callable[[Any, Any], Mapping[str, str]]) -> None:
        """Raise ConfigError, which names it, where a rank has other facts (plain data) than rank 0."""
        self._store.set(f"{what}/{self.rank}", json.dumps(facts))
        if self.leads:
            wrong = [(rank, differences(facts, json.loads(self._read(f"{what}/{rank}")))) for rank in range(1, self.size)]
            wrong = [(rank, found) for rank, found in wrong if found]
            if wrong:
                rank, found = wrong[0]
                listed = ", ".join(f"{key} {change}" if len(change) < 60 else key for key, change in found.items())
                others = f" (and {len(wrong) - 1} other ranks)" if wrong[1:] else ""
                raise ConfigError(f"rank {rank}{others} differs from rank 0 in its {what}: {listed}; give all ranks the same")
        self.agree(f"{what}/same", lambda: True)

    def _read(self, key: str) -> bytes:
        """Wait for an entry of the store; leave where a rank has ended meanwhile."""
        deadline = time.monotonic() + PREPARE_SECONDS
        with self._answers():
            while not self._store.check([key]):
                if self._store.check(["said"]):
                    raise LostRankError("another rank has said why all end; see its line")
                if time.monotonic() > deadline:
                    raise LostRankError(f"gave no word of {key} within {PREPARE_SECONDS:.0f} s; look what holds it up, and start again")
                time.sleep(0.02)
            return bytes(self._store.get(key))

    # Collectives

    def open(self, device: str, wait_seconds: float) -> None:
        """Connect the ranks; a collective call waits so long for a silent one. Raises ConfigError where a machine has too few GPUs."""
        if device not in ("cpu", "cuda"):
            raise ConfigError(f"device.name is {device}, on which several ranks cannot talk; set device.name=cpu")
        if device == "cuda":
            if self.local_rank >= torch.cuda.device_count():
                raise ConfigError(
                    f"rank {self.rank} is number {self.local_rank + 1} on its machine, which has {torch.cuda.device_count()} GPUs; "
                    f"start one rank a GPU (torchrun --nproc-per-node)"
                )
            torch.cuda.set_device(self.local_rank)
        self._wait_seconds = wait_seconds
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        with self._answers():
            dist.init_process_group(
                backend,
                store=PrefixStore("group", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=wait_seconds),
            )

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put in the place of each tensor its sum over all ranks, in one message a dtype; tell on the way who asks for a stop."""
        if not tensors:
            return
        for kind in sorted({tensor.dtype for tensor in tensors}, key=str):
            same = [tensor for tensor in tensors if tensor.dtype == kind]
            wishes = same[0].new_zeros(len(STOPS))
            if self._asked.signal_number in STOPS:
                wishes[STOPS.index(self._asked.signal_number)].fill_(1)
            message = torch.cat([*(tensor.detach().reshape(-1) for tensor in same), wishes])
            with self._answers():
                dist.all_reduce(message)
            *sums, flags = message.split([*(tensor.numel() for tensor in same), len(STOPS)])
            with torch.no_grad():
                torch._foreach_copy_(same, [total.view_as(tensor) for total, tensor in zip(sums, same, strict=True)])
            self._hear(flags)

    def gather(self, values: Tensor) -> Tensor:
        """Return the values of all ranks, [size, *values.shape]."""
        everyone = values.new_empty((self.size, *values.shape))
        with self._answers():
            dist.all_gather(list(everyone.unbind()), values.contiguous())
        return everyone

    def sums(self, values: Tensor) -> list[float]:
        """Return each of the values [N] added up over all ranks, exactly: it does not matter how many are sent at once."""
        columns = zip(*self.gather(values).tolist(), strict=True)
        return [math.fsum(column) if all(map(math.isfinite, column)) else sum(column) for column in columns]

    def told(self, content: bytes | None) -> bytes:
        """Return on all ranks what rank 0 tells; the others give None."""
        with self._answers():
            size = torch.tensor([0 if content is None else len(content)])
            dist.broadcast(size, 0)
            message = (
                torch.empty(int(size), dtype=torch.uint8) if content is None else torch.frombuffer(bytearray(content), dtype=torch.uint8)
            )
            dist.broadcast(message, 0)
        return message.numpy().tobytes()

    def agreeing_on(self, asked: StopRequest) -> StopRequest:
        """Return a request that is there, on all ranks in the same step, once any of them was `asked` to stop."""
        self._asked, self._agreed = asked, StopRequest()
        return self._agreed

    def _hear(self, flags: Tensor) -> None:
        """Note who asked for a stop: at once, or where the flags lie on a GPU, some steps later."""
        if flags.is_cuda:
            there = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True).copy_(flags, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._flags.append((there, event))
            if len(self._flags) <= LAG:
                return
            flags, event = self._flags.popleft()
            event.synchronize()
        for number, asked in zip(STOPS, flags.tolist(), strict=True):
            if asked:
                self._agreed.signal_number = number

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Turn what torch says of a rank that is gone or silent into LostRankError."""
        try:
            yield
        except RuntimeError as error:
            silent = "timed out" in str(error).lower() or "timeout" in str(error).lower()
            what = f"does not answer within device.wait_seconds={self._wait_seconds:g}" if silent else "was killed, or its machine is down"
            raise LostRankError(f"{what}; see what the system says of it (often: out of memory)") from error

    # The end

    def close(self) -> None:
        """Let go of the other ranks, at the end of a training that went well."""
        with suppress(RuntimeError):
            self._store.set(f"left/{self.rank}", "")
        if self.leads:  # the store may live in this process
            self._wait_for([f"left/{rank}" for rank in range(1, self.size)], SAY_SECONDS)
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()

    def note_end(self, exit_code: int) -> bool:
        """Say in the store that this rank says why all end, with which code they are to leave; tell whether it is the first to."""
        with suppress(RuntimeError):
            if self._store.add("speakers", 1) > 1:
                return False
            self._store.set("said", str(exit_code))
        return True

    def end(self, error: FirstlightError) -> NoReturn:
        """Raise the error where nobody else has said why all end, and leave without a word otherwise.

        An error that all ranks meet is rank 0's to say; one that a single rank meets names it.
        """
        _ignore_signals()
        lost = isinstance(error, LostRankError)
        with suppress(RuntimeError):
            self._store.set(f"ending/{self.rank}", "")
        if lost or not self.leads:
            self._wait_for(["said"], SAY_SECONDS if self.leads else SAY_SECONDS + 1)
        if self._is_set("said") or not self.note_end(error.exit_code):
            code = error.exit_code
            with suppress(RuntimeError):
                code = int(self._store.get("said"))
                self._store.set(f"left/{self.rank}", "")
            sys.exit(code)
        others = [rank for rank in range(self.size) if rank != self.rank]
        gone = [rank for rank in others if not self._is_set(f"ending/{rank}")] if lost else []
        if self.leads:  # the store may live in this process
            self._wait_for([f"left/{rank}" for rank in others if rank not in gone], SAY_SECONDS)
        if lost:
            raise LostRankError(f"{self._name(gone or others)} {error}") from error
        if not self.leads:
            error.args = (f"rank {self.rank}: {error}",)
        raise error

    def _name(self, ranks: Sequence[int]) -> str:
        return f"rank {', '.join(map(str, ranks))} of {self.size}"

    def _is_set(self, *keys: str) -> bool:
        with suppress(RuntimeError):
            return bool(self._store.check(list(keys)))
        return False

    def _wait_for(self, keys: Sequence[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while keys and time.monotonic() < deadline and not self._is_set(*keys):
            time.sleep(0.02)


def _ignore_signals() -> None:
    """Let nobody interrupt the last words: torchrun terminates all ranks once one has ended."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
