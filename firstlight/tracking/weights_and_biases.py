"""A run as a run of Weights & Biases, online or as files that `wandb sync` sends later. Extra `wandb`.

wandb is imported in a process of its own alone (follow.py, or the command export-logs), never where a network trains.
"""

import hashlib
import json
import netrc
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from firstlight.errors import ConfigError
from firstlight.files import make_dir, write_json
from firstlight.tracking import told
from firstlight.tracking.environment import is_installed
from firstlight.tracking.run import Run

SENT = "wandb/firstlight.json"
"""Below the folder that wandb writes into: what of the run was handed over, so that nothing is twice."""
SERVICE = "WANDB_SERVICE"
"""Where wandb says to this process that its service runs."""
EXIT_CODES = {"finished": 0, "interrupted": 130}
"""What wandb is told of the end of a run; 1 of every other."""
MAX_RECORDS = 10_000
"""Records of an inspection that make a table."""
QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_CONSOLE": "off"}


def check_installed() -> None:
    """Raise ConfigError where wandb is not installed; it is not imported."""
    if not is_installed("wandb"):
        raise ConfigError('Weights & Biases is not installed; pip install "firstlight[wandb]", or set tracking.wandb=off')


def settle_mode(mode: str) -> str:
    """Return `online`, `offline` or `off` for a setting; `auto` is what WANDB_MODE says, else online where there is a login.

    Raises ConfigError for online without a login: to try and fall back costs a minute, and the user would not know which it was.
    """
    if mode == "auto":
        asked = os.environ.get("WANDB_MODE", "").lower()
        if asked in ("disabled", "dryrun", "offline"):
            return "off" if asked == "disabled" else "offline"
        mode = "online" if asked == "online" or has_login() else "offline"
    if mode == "online" and not has_login():
        raise ConfigError("Weights & Biases has no login here; run `wandb login`, set WANDB_API_KEY, or set tracking.wandb=offline")
    return mode


def has_login() -> bool:
    """Tell whether wandb would find a key: in the environment, or in the netrc file for its server. The key itself is not kept."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, RuntimeError, netrc.NetrcParseError):
        return False


def run_id(run: Run) -> str:
    """Return the id under which a run goes on when it is resumed or handed over again: that in run.json, or else one of its birth."""
    told_id = run.info.get("wandb_id")
    birth = json.dumps([run.name, run.info.get("started"), run.info.get("environment"), run.info.get("trial")], sort_keys=True)
    return told_id if isinstance(told_id, str) else hashlib.sha256(birth.encode()).hexdigest()[:12]


class WeightsAndBiases:
    """The wandb run of a run; wandb's files lie in `folder`/wandb.

    wandb numbers what it is told, and takes nothing back. Rows that it was told before a kill are left out when they come again; those
    that follow a rollback come under new numbers, with their own `step`, which is the horizontal axis of every chart.
    """

    def __init__(self, run: Run, folder: Path, *, project: str, entity: str | None, mode: Literal["online", "offline"]) -> None:
        os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
        os.environ.setdefault("WANDB_DATA_DIR", str(make_dir(folder / "wandb")))
        check_installed()
        import wandb

        self.folder = folder
        self._wandb = wandb
        self._owns_service = SERVICE not in os.environ  # else it is one that the user's own code works with
        self._id = run_id(run)
        settings = wandb.Settings(
            disable_git=True,
            save_code=False,
            console="off",
            silent=True,
            x_disable_stats=True,  # they would be of this process, which does not train
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            disable_job_creation=True,
        )
        self._sent = _read_sent(folder, self._id)
        try:
            self._run = wandb.init(
                project=project,
                entity=entity,
                mode=mode,
                id=self._id,
                name=told.title(run),
                group=told.study_of(run),
                job_type="trial" if told.study_of(run) else None,
                notes="\n".join(str(note) for note in run.info.get("notes", [])) or None,
                dir=str(folder),
                config={**run.config, "run": told.about(run)},
                resume="allow",
                settings=settings,
            )
        except BaseException:
            self.close()
            raise
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self.begin(run)

    @property
    def path(self) -> Path:
        """Where wandb writes this run."""
        return Path(self._run.settings.sync_dir)

    def begin(self, run: Run) -> None:
        """Take note that the rows come from the start; those behind the last rollback are new ones."""
        rollbacks = run.info.get("rollbacks", [])
        if len(rollbacks) != self._sent["rollbacks"]:
            self._sent["rollbacks"] = len(rollbacks)
            if rollbacks:
                self._sent["last"] = min(self._sent["last"], [int(rollbacks[-1].get("step", 0)), 1])

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log the rows that it was not told before, each under the next number."""
        for row in rows:
            place = [int(row.get("step", 0)), int(row["kind"] == "epoch")]
            if place > self._sent["last"]:
                self._run.log({"step": place[0], **told.scalars(row)}, step=self._sent["num"])
                self._sent |= {"num": self._sent["num"] + 1, "last": place}

    def end(self, run: Run) -> None:
        """Log pictures and tables, write the summary, and wait until wandb has all of it."""
        wandb = self._wandb
        media: dict[str, Any] = {tag: wandb.Image(str(path)) for tag, path in told.pictures(run).items()}
        for tag, records in told.tables(run).items():
            columns = list(dict.fromkeys(key for record in records for key in record))
            cells = [[_cell(record.get(column)) for column in columns] for record in records[:MAX_RECORDS]]
            media[tag] = wandb.Table(columns=columns, data=cells, allow_mixed_types=True)
        if media:
            self._run.log({"step": self._sent["last"][0], **media}, step=self._sent["num"])
            self._sent["num"] += 1
        for tag, number in told.figures(run).items():
            self._run.summary[tag] = number
        self._run.finish(exit_code=EXIT_CODES.get(run.state, 1))
        write_json(self.folder / SENT, {"id": self._id, **self._sent})

    def close(self) -> None:
        """Leave, and end the service that wandb started for this; `end` waited for everything."""
        if self._owns_service:
            with suppress(Exception, SystemExit):  # what wandb raises where its service was killed and can be told nothing
                self._wandb.teardown()


def _read_sent(folder: Path, run_id: str) -> dict[str, Any]:
    """Return how many things wandb was told, the last row's step and kind, and the rollbacks by then."""
    nothing = {"num": 0, "last": [-1, 1], "rollbacks": 0}
    try:
        found = json.loads((folder / SENT).read_text(encoding="utf-8"))
        if found["id"] == run_id and found.keys() >= nothing.keys():
            return {key: found[key] for key in nothing}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return nothing


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)
