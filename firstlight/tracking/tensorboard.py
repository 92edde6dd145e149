"""A run as a TensorBoard event file: scalars, pictures, hyperparameters. Extra `tensorboard`.

The package's own protocol buffers and record format are made in memory and written by files.py. Its writer is not used: it writes from a
thread, and where the disk is full it loses records without a word.
"""

import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from firstlight.errors import ConfigError
from firstlight.files import append_chunks, make_dir, remove, write_bytes
from firstlight.tracking import told
from firstlight.tracking.environment import is_installed
from firstlight.tracking.run import Run

PREFIX, SUFFIX = "events.out.tfevents", "firstlight"
"""Around the start of the run and the number of the file; by them TensorBoard finds event files, and we ours."""
CHARTS = {"loss": "loss/(step|train|val)", "accuracy": "accuracy/(train|val)", "learning rate": "step/lr"}
"""Charts of the tab CUSTOM SCALARS and the tags that are drawn into each."""
STATUS = {"finished": "STATUS_SUCCESS", "failed": "STATUS_FAILURE"}
"""What the tab HPARAMS calls the end of a run; one that may go on has none."""


def check_installed() -> None:
    """Raise ConfigError where TensorBoard is not installed."""
    if not is_installed("tensorboard"):
        raise ConfigError('TensorBoard is not installed; pip install "firstlight[tensorboard]", or set tracking.tensorboard=false')


class TensorBoard:
    """The event file of a run in `folder`; it takes the place of the one that stood there, for the rows tell all from the start."""

    def __init__(self, run: Run, folder: Path) -> None:
        check_installed()
        self.folder = make_dir(folder)
        self._step = 0
        self._began = _instant(run)
        self.begin(run)

    def begin(self, run: Run) -> None:
        """Begin a new file with the settings of the run, and drop the ones before it."""
        older = event_files(self.folder)
        number = 1 + max((int(path.name.split(".")[-2]) for path in older), default=0)
        self.path = self.folder / f"{PREFIX}.{int(self._began):010d}.{number:04d}.{SUFFIX}"
        self._seconds = 0.0
        head = _records([_file_version(self._began), _start_over(self._began), self._event(0, [_hparams_start(run), _layout()])])
        write_bytes(self.path, head)
        self._size = len(head)
        for path in older:
            remove(path)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append an event for each row, at its step."""
        self._append(list(self._events(rows)))

    def end(self, run: Run) -> None:
        """Append what the run came to, its pictures and how it ended."""
        values = [*map(_scalar, *zip(*told.figures(run).items(), strict=True))] if told.figures(run) else []
        values += [_picture(tag, path) for tag, path in told.pictures(run).items()]
        values += [_hparams_end(STATUS[run.state], self._began + self._seconds)] if run.state in STATUS else []
        self._append([self._event(self._step, [value]) for value in values])

    def close(self) -> None:
        """Leave; every event is with the operating system."""

    def _events(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
        for row in rows:
            self._step = int(row.get("step", self._step))
            self._seconds += float(row.get("seconds") or 0.0)
            yield self._event(self._step, [_scalar(tag, number) for tag, number in told.scalars(row).items()])

    def _event(self, step: int, values: list[Any]) -> Any:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        return Event(wall_time=self._began + self._seconds, step=step, summary=Summary(value=values))

    def _append(self, events: list[Any]) -> None:
        content = _records(events)
        append_chunks(self.path, self._size, iter([content]))  # from there: a write that failed half-way is written over
        self._size += len(content)


def event_files(folder: Path) -> list[Path]:
    """Return the event files that we wrote into a folder, the oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}.*.{SUFFIX}") if path.name.split(".")[-2].isdigit())


def write_study(folder: Path, runs: list[Run]) -> Path:
    """Write an event file that lists the settings and figures of the runs of a study for the tab HPARAMS; return it.

    What differs between the runs comes first there. folder: above the runs' event files.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2

    settings = [told.hyperparameters(run) for run in runs]
    known = list(dict.fromkeys(key for one in settings for key in one))
    infos = []
    for key in known:
        values = [one[key] for one in settings if key in one]
        kind = "BOOL" if all(isinstance(value, bool) for value in values) else "FLOAT64"
        kind = "STRING" if any(isinstance(value, str) for value in values) else kind
        differs = len({str(one.get(key)) for one in settings}) > 1
        infos.append(api_pb2.HParamInfo(name=key, type=getattr(api_pb2, f"DATA_TYPE_{kind}"), differs=differs))
    names = (
        "best/val_accuracy",
        "best/val_loss",
        "best/train_accuracy",
        "best/train_loss",
        "best/test_accuracy",
        "best/epoch",
        "run/seconds",
    )
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in names if any(tag in told.figures(run) for run in runs)]
    experiment = api_pb2.Experiment(name=folder.name, hparam_infos=infos, metric_infos=metrics, time_created_secs=_instant(runs[0]))
    value = _hparams("experiment", experiment=experiment)
    path = make_dir(folder) / f"{PREFIX}.{int(_instant(runs[0])):010d}.0001.{SUFFIX}"
    began = _instant(runs[0])
    write_bytes(path, _records([_file_version(began), Event(wall_time=began, summary=Summary(value=[value]))]))
    return path


def _instant(run: Run) -> float:
    """Return when a run began, in seconds since 1970; now, where it does not say."""
    try:
        return datetime.fromisoformat(run.info["started"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return time.time()


def _records(events: Iterable[Any]) -> bytes:
    """Return events as the records of an event file."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()


def _file_version(when: float) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=when, file_version="brain.Event:2")


def _start_over(when: float) -> Any:
    """Return the event that lets a TensorBoard that is just looking forget what an older file said."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    return Event(wall_time=when, step=0, session_log=SessionLog(status=SessionLog.START))


def _scalar(tag: str, number: float) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=tag, simple_value=number)


def _picture(tag: str, path: Path) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24]) if len(content) >= 24 else (0, 0)
    return Summary.Value(tag=tag, image=Summary.Image(width=width, height=height, encoded_image_string=content))


def _hparams_start(run: Run) -> Any:
    from tensorboard.plugins.hparams.plugin_data_pb2 import SessionStartInfo

    info = SessionStartInfo(start_time_secs=_instant(run), group_name=told.title(run))
    for key, value in told.hyperparameters(run).items():
        kind = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(info.hparams[key], kind, value)
    return _hparams("session_start_info", session_start_info=info)


def _hparams_end(status: str, when: float) -> Any:
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo

    return _hparams("session_end_info", session_end_info=SessionEndInfo(status=getattr(api_pb2, status), end_time_secs=when))


def _hparams(tag: str, **content: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    about = metadata.create_summary_metadata(HParamsPluginData(**content))
    return Summary.Value(tag=f"_hparams_/{tag}", metadata=about, tensor=metadata.NULL_TENSOR)


def _layout() -> Any:
    """Return the charts of the tab CUSTOM SCALARS, in which training and validation are drawn on the same axes."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
    from tensorboard.util.tensor_util import make_tensor_proto

    charts = [Chart(title=name, multiline=MultilineChartContent(tag=[tags])) for name, tags in CHARTS.items()]
    layout = Layout(category=[Category(title="training", chart=charts)])
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="custom_scalars"))
    return Summary.Value(tag="custom_scalars__config__", metadata=about, tensor=make_tensor_proto(layout.SerializeToString()))
