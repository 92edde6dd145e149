"""The connection to a Ray cluster (Ray Core; extra `ray`), for studies and for one training in several ranks.

RAY_ADDRESS names the cluster; without it one is started on this machine, with a token of its own, and stopped at the end.
"""

import io
import logging
import os
import secrets
import sys
from typing import Any

from firstlight.errors import ConfigError

LAUNCH = "FIRSTLIGHT_LAUNCH"
"""Environment variable of a rank that Ray started: the options that start as many again, for the line that says how to go on."""


class Cluster:
    """Ray, connected. Until it is closed, stdout is kept from Ray, which prints there what it thinks of processes that died.

    instead: what may be taken where there is no cluster, for the line of ConfigError that says so.
    """

    def __init__(self, *, instead: str) -> None:
        local = "RAY_ADDRESS" not in os.environ
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if local:  # nobody else on this machine is to send it tasks; Ray reads both where it is imported
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            import ray
        except ImportError:
            raise ConfigError('--workers ray needs Ray, which is not installed; pip install "firstlight[ray]"') from None
        self.ray: Any = ray
        self.stdout = sys.stdout
        self._owns = local and not ray.is_initialized()
        if not ray.is_initialized():
            try:
                ray.init(include_dashboard=False if local else None, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                place = "on this machine" if local else f"at RAY_ADDRESS={os.environ['RAY_ADDRESS']}"
                reason = " ".join(str(error).split())[:200]
                raise ConfigError(f"no Ray cluster {place} ({reason}); start one with `ray start --head`, or {instead}") from None
        sys.stdout = io.StringIO()

    def close(self) -> None:
        """Let go of the cluster, and end it where it is ours."""
        if self._owns:
            self.ray.shutdown()
        sys.stdout = self.stdout
