"""A process that trains in forks of itself, so that hundreds of trainings can be killed without a new start of Python for each.

It reads one JSON request a line from stdin and answers each with one JSON line on stdout:
  {"config": FILE, "overrides": [...], "runs_dir": DIR, "name": NAME, "resume": bool, "failpoint": TEXT,
   "kill_after": SECONDS from the first save on}
  {"exit": code or minus signal, "saved": [steps whose save was acknowledged], "error": text or null,
   "operations": [kind of each file operation, such as "replace last.json"] or null where a failpoint was set}
It has one thread only: a fork of a process with more may hang.
"""

import json
import os
import re
import select
import signal
import sys
import tempfile
from pathlib import Path

import torch
from small_pictures import write_small_pictures

import firstlight as fl
from firstlight import files
from firstlight.engine import train as engine
from firstlight.engine.record import Recorder
from firstlight.errors import FirstlightError
from firstlight.tracking.console import Console


class Journal:
    """A failpoint that only notes what kind of operation it sees: its name, and the file's, without its step and its process."""

    def __init__(self):
        self.operations = []

    def __call__(self, name, path, action, detail=None):
        whose = re.sub(r"step-\d+(-batch-\d+)?", "step", path.name.replace(str(os.getpid()), ""))
        in_step = "step/" if "step-" in path.parent.name else ""
        self.operations.append(f"{name} {in_step}{whose}")
        return action()


def child(request, report):
    """Train, and tell the parent of each save when it is done."""

    def tell(**facts):
        os.write(report, (json.dumps(facts) + "\n").encode())

    def save(recorder, state, setup, **options):
        done = real(recorder, state, setup, **options)
        if done:
            tell(saved=state.step)
        return done

    real = Recorder.save
    Recorder.save = save
    files._failpoint = files.Failpoint(request["failpoint"]) if request.get("failpoint") else Journal()
    try:
        quiet, runs_dir, name = Console(quiet=True), request["runs_dir"], request["name"]
        if request.get("resume"):
            fl.resume(Path(runs_dir) / name, console=quiet)
        else:
            fl.train(request["config"], *request["overrides"], runs_dir=runs_dir, name=name, console=quiet)
        if isinstance(files._failpoint, Journal):
            tell(operations=files._failpoint.operations)
    except FirstlightError as error:
        tell(error=f"{type(error).__name__}: {error}")
        os._exit(error.exit_code)
    except BaseException as error:
        tell(error=f"traceback of {type(error).__name__}: {error}")
        os._exit(99)
    os._exit(0)


def serve(request):
    """Answer one request."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        child(request, write)
    os.close(write)
    if request.get("kill_after") is not None:
        select.select([read], [], [], 60)  # the first save is acknowledged, however busy the machine is
        select.select([], [], [], request["kill_after"])
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(read) as lines:
        said = [json.loads(line) for line in lines]
    _, status = os.waitpid(pid, 0)
    answer = {"exit": os.waitstatus_to_exitcode(status), "saved": [], "operations": None, "error": None}
    for facts in said:
        answer["saved"] += [facts.pop("saved")] if "saved" in facts else []
        answer |= facts
    return answer


if __name__ == "__main__":
    torch.set_num_threads(1)
    engine.draw_pictures = write_small_pictures
    with tempfile.TemporaryDirectory() as folder:  # imports all that a training needs, once and not in each fork
        fl.train("quickstart", "train.epochs=1", "device.name=cpu", "device.threads=1", runs_dir=folder, console=Console(quiet=True))
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
