"""One run: its figures, curves, log, settings and machine; live while it trains."""

import shlex
from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from firstlight.dashboard.curves import as_number, read_curves
from firstlight.dashboard.folders import PlainRun, as_list, flatten, instant, last_epoch, plain_text, read_plain, written
from firstlight.dashboard.follow import follow
from firstlight.dashboard.index import Index
from firstlight.dashboard.render import answer, page, show_number, show_seconds, show_time
from firstlight.dashboard.table import Found
from firstlight.tracking.run import Run

LOG_BYTES = 2**17
LOG_LINES = 400
"""Lines of the log that a page shows."""
STATES = ("running", "finished", "interrupted", "failed", "damaged")


def run_of(request: Request) -> Found:
    """Return the run that an address names. Raises HTTPException where none has this id, or its folder is gone."""
    index: Index = request.app.state.index
    found = index.find(request.path_params["id"])
    if found is None:
        raise HTTPException(404, "no run has this address; it may have been removed or renamed")
    if not (found.path / "run.json").exists():
        raise HTTPException(410, f"the folder of run {found.name} is gone; it was removed or renamed")
    return found


async def show_run(request: Request) -> Response:
    """Show a run."""
    found = run_of(request)
    run = PlainRun(found.path)
    info, damage = run.info, run.damage
    facts: dict[str, Any] = {"found": found, "state": plain_text(run.state), "damage": damage and plain_text(damage), "states": STATES}
    facts |= {"tiles": tiles(run), "progress": progress(run), "warnings": warnings_of(info), "hint": hint(run)}
    facts |= {key: [plain_text(word) for word in as_list(info.get(key))] for key in ("notes", "tags")}
    facts |= {"rollbacks": _mappings(info.get("rollbacks")), "openings": [opening(one) for one in _mappings(info.get("test_openings"))]}
    facts |= {"about": about(run), "settings": {} if damage else sections(run.config), "machine": machine(info)}
    facts |= {"log": log_of(found), "command": command_of(info), "has_report": written(found.path / "report.html") is not None}
    return page(request, "run.html", **facts)


async def send_curves(request: Request) -> Response:
    """Answer with the curves of a run."""
    found = run_of(request)
    curves = await run_in_threadpool(read_curves, found.path / "metrics.jsonl")
    return answer(curves | {"num_train": num_train(PlainRun(found.path))})


async def send_events(request: Request) -> Response:
    """Answer with a stream of what is new in a run."""
    found, state = run_of(request), request.app.state
    return StreamingResponse(follow(state.followers, found.id, found.path, state.stopping), media_type="text/event-stream")


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """Return the figures that stand out: name, value, and what is to be said beside it."""
    if run.damage:
        return []
    summary, last = run.summary, last_epoch(str(run.path))
    found = []
    for key, name in (("val_accuracy", "validation accuracy"), ("val_loss", "validation loss"), ("train_accuracy", "training accuracy")):
        value = as_number(summary.get(key, last.get(key)))
        if value is not None:
            beside = f"best, epoch {summary['best_epoch']}" if "best_epoch" in summary else f"epoch {last.get('epoch', '?')}"
            found.append((name, f"{value:.4f}", plain_text(beside)))
    openings = len(as_list(run.info.get("test_openings")))
    if (value := as_number(summary.get("test_accuracy"))) is not None:
        found.append(("test accuracy", f"{value:.4f}", f"test set opened {openings} time{'s' * (openings != 1)}"))
    seconds, images = as_number(last.get("seconds")), num_train(run)
    if seconds and images:
        found.append(("throughput", f"{show_number(images / seconds)} img/s", "last epoch, validation included"))
    total = as_number(run.info.get("seconds")) or as_number(summary.get("seconds"))
    if total:
        found.append(("time", show_seconds(total), f"{show_number(last['step'])} steps" if as_number(last.get("step")) else ""))
    return found


def progress(run: Run) -> tuple[int, int] | None:
    """Return the epochs that are done and those there will be; None for a run that does not train."""
    train = run.config.get("train")
    total = as_number(train.get("epochs")) if isinstance(train, Mapping) else None
    if run.state not in ("running", "interrupted") or not total:
        return None
    return int(as_number(last_epoch(str(run.path)).get("epoch")) or 0), int(total)


def num_train(run: Run) -> int | float | None:
    """Return the number of training images."""
    return None if run.damage else as_number(run.info.get("data", {}).get("num_train"))


def hint(run: Run) -> str | None:
    """Return what to type to go on with a run."""
    return shlex.join(["firstlight", "train", "--resume", str(run.path)]) if run.state in ("interrupted", "failed") else None


def warnings_of(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the training was warned of, each with its epoch."""
    entries = _mappings(info.get("warnings"))
    return [(plain_text(entry.get("epoch", "")), plain_text(entry.get("says", ""))) for entry in entries]


def opening(entry: Mapping[str, Any]) -> str:
    """Return one opening of the test set as a sentence."""
    accuracy = as_number(entry.get("accuracy"))
    figure = "" if accuracy is None else f", accuracy {accuracy:.4f} on {show_number(as_number(entry.get('num_images')))} images"
    return f"{plain_text(entry.get('when', ''))[:16].replace('T', ' ')} by {plain_text(entry.get('by', '?'))}{figure}"


def about(run: Run) -> dict[str, str]:
    """Return what a run is: its data, network and seeds."""
    if run.damage:
        return {}
    info, config = run.info, run.config
    data, network = info.get("data", {}), info.get("network", {})
    kinds = {key: config[key].get("name") if isinstance(config.get(key), Mapping) else config.get(key) for key in ("model", "optim")}
    flops = as_number(network.get("flops_per_image"))
    found = {
        "started": show_time(start) if (start := instant(info.get("started"))) is not None else None,
        "data": data.get("source"),
        "images": f"{show_number(data.get('num_train'))} to train, {show_number(data.get('num_val'))} to validate",
        "network": f"{kinds['model']}, {show_number(as_number(network.get('num_parameters')))} parameters",
        "FLOPs an image": None if flops is None else f"{flops / 1e6:,.2f} million forward",
        "optimizer": kinds["optim"],
        "processes": info.get("ranks"),
    }
    return {key: plain_text(value) for key, value in found.items() if value is not None}


def machine(info: Mapping[str, Any]) -> dict[str, str]:
    """Return where and with what a run was made."""
    shown: dict[str, Any] = {}
    for key in ("environment", "machine", "seeds"):
        if isinstance(value := info.get(key), Mapping):
            shown |= flatten({name: one for name, one in value.items() if name != "command"})
    return {key.removeprefix("packages."): plain_text(value) for key, value in list(shown.items())[:60]}


def command_of(info: Mapping[str, Any]) -> str:
    """Return the command that made a run."""
    environment = info.get("environment")
    words = as_list(environment.get("command")) if isinstance(environment, Mapping) else []
    return plain_text(shlex.join(map(plain_text, words)))


def sections(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the settings by section, those without one first."""
    alone = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    nested = {plain_text(key): value for key, value in config.items() if isinstance(value, Mapping)}
    return {key: {name: _shown(one) for name, one in value.items()} for key, value in {"experiment": alone, **nested}.items() if value}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else plain_text(value)


def log_of(found: Found) -> str:
    """Return the end of a run's log."""
    try:
        text = read_plain(found.path / "log.txt", most=LOG_BYTES, tail=True).decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(line[:1000] for line in text.splitlines()[-LOG_LINES:])


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in as_list(value) if isinstance(one, Mapping)]
