"""Those who carry out trials for the leader of a study: this process, or child processes with one thread each.

Both are asked alike: `num_free`, `start(trial, config)`, `wait()` for what came out, `close()`. Reading order: Outcome, Here, Processes.
"""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from queue import Empty, SimpleQueue
from typing import IO, Any, Protocol

from firstlight.config.describe import to_dict
from firstlight.config.schema import Config
from firstlight.errors import FirstlightError, StorageError
from firstlight.studies.store import Log
from firstlight.studies.trial import Place, Row, Trial
from firstlight.studies.worker import carry_out

COMMAND = (sys.executable, "-m", "firstlight.studies.worker")
STOP_SECONDS = 60.0
"""Time that a worker has to save a checkpoint and leave."""
LOOK_SECONDS = 0.5
"""Longest wait for news of the workers before the leader looks at its budget of time."""
MAX_STILLBORN = 3
"""Workers in a row that may die before any is ready, beside one for each that was asked for: then something is wrong with all of them."""
MAX_STILLBORN_LATER = 100
"""The same once one was ready: then something kills them, and may stop."""
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: its row; or that it paused; or why its worker died."""

    trial: Trial
    row: Row | None = None
    died: str | None = None


class Workers(Protocol):
    """Those who carry out trials."""

    @property
    def num_free(self) -> int:
        """How many trials can be started now."""

    def start(self, trial: Trial, config: Callable[[], Config]) -> None:
        """Begin with a trial. Raises ConfigError where it has no config, and then nothing was begun."""

    def wait(self) -> list[Outcome]:
        """Return what came out since the last call; wait a little where nothing did. Raises the errors that end a study."""

    def close(self) -> None:
        """Let what is running save itself and end."""


class Here:
    """This process, one trial at a time. train: as training.train_trial."""

    def __init__(self, place: Place, log: Log, train: Callable[[Trial, Config, Place, Log], Row | None]) -> None:
        self._place, self._log, self._train = place, log, train
        self._done: list[Outcome] = []

    @property
    def num_free(self) -> int:
        """One, until the outcome is fetched."""
        return 1 - len(self._done)

    def start(self, trial: Trial, config: Callable[[], Config]) -> None:
        """Carry the trial out, and come back when it has ended."""
        row = carry_out(trial, self._log, lambda: self._train(trial, config(), self._place, self._log), sync=False)
        self._done.append(Outcome(trial, row))

    def wait(self) -> list[Outcome]:
        """Return the trial that was started last."""
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Do nothing: a trial that is interrupted here saves itself."""


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    trial: Trial | None = None
    ready: bool = False
    said: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    """The end of what it printed."""

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died, and the end of its answers says so
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def last_words(self) -> str:
        """Return how it ended."""
        code = self.process.wait()
        said = next((f": {line.strip()}" for line in reversed(self.said) if line.strip()), "")
        return f"{f'signal {-code}' if code < 0 else f'exit code {code}'}{said}"


class Processes:
    """Child processes that are started anew where one dies, and that end when this process does.

    command: starts a worker (firstlight.studies.worker says how one behaves). They form sessions of their own, so that a Ctrl-C reaches
    only the leader.
    """

    def __init__(self, num: int, place: Place, command: Sequence[str] = COMMAND) -> None:
        self._place, self._command = place, command
        self._events: SimpleQueue[tuple[_Worker, bytes]] = SimpleQueue()
        self._stillborn, self._proven = 0, False
        self._workers = [self._begin() for _ in range(num)]

    @property
    def num_free(self) -> int:
        """Workers that wait for a trial."""
        return len(self._idle())

    @property
    def pids(self) -> list[int]:
        """The process ids."""
        return [worker.process.pid for worker in self._workers]

    def start(self, trial: Trial, config: Callable[[], Config]) -> None:
        """Send a trial to a worker that waits."""
        message = {"trial": asdict(trial), "config": to_dict(config())}
        worker = self._idle()[0]
        worker.trial = trial
        worker.send(message)

    def wait(self) -> list[Outcome]:
        """Return what the workers answered; replace those that died."""
        try:
            events = [self._events.get(timeout=LOOK_SECONDS)]
        except Empty:
            return []
        while not self._events.empty():
            events.append(self._events.get())
        return [outcome for worker, line in events if (outcome := self._heard(worker, line)) is not None]

    def close(self) -> None:
        """Close the pipes, which ends the workers, and see them off."""
        for worker in self._workers:
            worker.hang_up()
        try:
            for worker in self._workers:
                worker.process.wait(STOP_SECONDS)
        except BaseException as error:  # one that hangs, or a second Ctrl-C
            for worker in self._workers:
                worker.process.kill()
                worker.process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def _idle(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.ready and worker.trial is None]

    def _begin(self) -> _Worker:
        """Start a worker, and threads that hand over what it says; they end with it."""
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(POOLS, "1")},
            start_new_session=True,
        )
        worker = _Worker(process)
        threading.Thread(target=self._listen, args=(worker, process.stdout), daemon=True).start()
        threading.Thread(target=_keep, args=(worker, process.stderr), daemon=True).start()
        worker.send(asdict(self._place))
        return worker

    def _listen(self, worker: _Worker, answers: IO[bytes]) -> None:
        with answers:
            for line in answers:
                if line.endswith(b"\n"):  # else torn by a kill
                    self._events.put((worker, line))
        self._events.put((worker, b""))

    def _heard(self, worker: _Worker, line: bytes) -> Outcome | None:
        if not line:
            return self._buried(worker)
        answer, trial = json.loads(line), worker.trial
        if "ready" in answer:
            worker.ready, self._stillborn, self._proven = True, 0, True
            return None
        assert trial is not None
        if "error" in answer:
            raise error_of(answer)
        worker.trial = None
        return Outcome(trial, answer["row"])

    def _buried(self, worker: _Worker) -> Outcome | None:
        """Put another worker in the place of one that died. Raises FirstlightError where they die before they are ready."""
        words = worker.last_words()
        worker.hang_up()
        self._stillborn += not worker.ready
        if self._stillborn > (MAX_STILLBORN_LATER if self._proven else MAX_STILLBORN) + len(self._workers):
            raise FirstlightError(f"the workers of the study die at their start ({words}); try --workers 1, which says more")
        self._workers[self._workers.index(worker)] = self._begin()
        return None if worker.trial is None else Outcome(worker.trial, died=words)


def error_of(answer: dict[str, Any]) -> FirstlightError:
    """Return the error that a worker met, as the leader raises it."""
    kind = StorageError if answer["code"] == StorageError.exit_code else FirstlightError
    return kind(answer["error"])


def _keep(worker: _Worker, errors: IO[bytes]) -> None:
    with errors:
        for line in errors:
            worker.said.append(line.decode(errors="replace"))
