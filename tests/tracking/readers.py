"""What TensorBoard's and wandb's own code finds in what was written for them."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context
from wandb.proto.wandb_internal_pb2 import Record

EVERYTHING = {"scalars": 0, "images": 0, "tensors": 0}


def event_accumulator(folder: Path) -> Any:
    found = EventAccumulator(str(folder), size_guidance=EVERYTHING)
    found.Reload()
    return found


def hparams_table(logdir: Path) -> tuple[list[str], list[str], dict[str, tuple[dict[str, Any], dict[str, float]]]]:
    """Return the columns of settings and of metrics of the tab HPARAMS, and its rows by run: settings and metrics."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    backend = Context(TBContext(data_provider=provider, logdir=str(logdir)))
    asked = context.RequestContext()
    metadata = backend.hparams_metadata(asked, "")
    columns = backend.experiment_from_metadata(asked, "", True, metadata, [])
    settings, metrics = [info.name for info in columns.hparam_infos], [info.name.tag for info in columns.metric_infos]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=1000,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING],
    )
    for info in columns.metric_infos:
        request.col_params.add(metric=info.name)
    for name in settings:
        request.col_params.add(hparam=name, include_in_result=True)
    answer = list_session_groups.Handler(asked, backend, "", request).run()
    rows = {}
    for group in answer.session_groups:
        values = {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()}
        rows[group.sessions[0].name] = values, {metric.name.tag: metric.value for metric in group.sessions[0].metric_values}
    return settings, metrics, rows


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file: LevelDB's log format, blocks of 32 KiB, each record one of wandb's protocol buffers."""
    content, at, parts = path.read_bytes(), 7, []
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(b"".join(parts))
            parts = []


def wandb_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def items(update: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in update:
        first, *rest = item.nested_key or [item.key]
        if rest:
            found.setdefault(first, {})["/".join(rest)] = json.loads(item.value_json)
        else:
            found[first] = json.loads(item.value_json)
    return found


def wandb_run(path: Path) -> tuple[Any, dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """Return the run record of a .wandb file, its config, the rows of its history, and its summary."""
    run, config, history, summary = None, {}, [], {}
    for record in wandb_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            config |= items(record.run.config.update)
        elif kind == "config":
            config |= items(record.config.update)
        elif kind == "history":
            history.append(items(record.history.item))
        elif kind == "summary":
            summary |= items(record.summary.update)
    return run, config, history, summary
