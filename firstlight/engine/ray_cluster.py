"""The connection to a Ray cluster (Ray Core; extra `ray`), for studies and for one training in several ranks.

RAY_ADDRESS names the cluster; without it one is started on this machine, with a token of its own, and stopped at the end.
"""

import logging
import os
import secrets
from typing import Any

from firstlight.errors import ConfigError

LAUNCH = "FIRSTLIGHT_LAUNCH"
"""Environment variable of a rank that Ray started: the options that start as many again, for the line that says how to go on."""


def connect(*, instead: str) -> tuple[Any, bool]:
    """Return Ray, connected, and whether the cluster is ours. Raises ConfigError that names what may be taken `instead`."""
    local = "RAY_ADDRESS" not in os.environ
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if local:  # nobody else on this machine is to send it tasks; Ray reads both where it is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError:
        raise ConfigError('--workers ray needs Ray, which is not installed; pip install "firstlight[ray]"') from None
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(include_dashboard=False if local else None, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = "on this machine" if local else f"at RAY_ADDRESS={os.environ['RAY_ADDRESS']}"
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"no Ray cluster {place} ({reason}); start one with `ray start --head`, or {instead}") from None
    return ray, local
