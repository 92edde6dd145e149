"""firstlight: an experiment bench for image classification on PyTorch.

>>> import firstlight as fl
>>> run = fl.train("quickstart", optim={"lr": 0.1})
>>> fl.evaluate(run.path)["accuracy"]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firstlight.config.schema import Config
    from firstlight.data.build import load_data
    from firstlight.data.dataset import Dataset, make_dataset
    from firstlight.engine.finished import evaluate
    from firstlight.engine.predict import predict
    from firstlight.engine.restore import load_model
    from firstlight.engine.sources import load_config
    from firstlight.engine.train import resume, train
    from firstlight.errors import FirstlightError
    from firstlight.inspection.compare import compare
    from firstlight.inspection.health import check_health
    from firstlight.models.build import build_model
    from firstlight.reports.report import report
    from firstlight.tracking.run import Run, list_runs, load_run

__version__ = "0.1.0"

_HOMES = {
    "Config": "config.schema",
    "Dataset": "data.dataset",
    "FirstlightError": "errors",
    "Run": "tracking.run",
    "build_model": "models.build",
    "check_health": "inspection.health",
    "compare": "inspection.compare",
    "evaluate": "engine.finished",
    "list_runs": "tracking.run",
    "load_config": "engine.sources",
    "load_data": "data.build",
    "load_model": "engine.restore",
    "load_run": "tracking.run",
    "make_dataset": "data.dataset",
    "predict": "engine.predict",
    "report": "reports.report",
    "resume": "engine.train",
    "train": "engine.train",
}
"""The public names and the module of each; imported when first used, so that `import firstlight` costs next to nothing."""

__all__ = [
    "Config",
    "Dataset",
    "FirstlightError",
    "Run",
    "build_model",
    "check_health",
    "compare",
    "evaluate",
    "list_runs",
    "load_config",
    "load_data",
    "load_model",
    "load_run",
    "make_dataset",
    "predict",
    "report",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'firstlight' has no attribute {name!r}")
    return getattr(import_module(f"firstlight.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
