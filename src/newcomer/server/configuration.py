"""Configuration of the service, passed to its worker processes as JSON."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from newcomer.errors import SettingError

VARIABLE = "NEWCOMER_SERVE"
"""Environment variable with the configuration of a worker process."""

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which workers share their metrics."""


class Limits(BaseModel):
    """Limits of requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body: int = Field(default=32 * 2**20, ge=1024)
    """Size of a body in bytes."""
    rows: int = Field(default=10_000, ge=1)
    """Items, candidates or events in a request."""
    inputs: int = Field(default=256, ge=1)
    """Images or texts in a request."""
    jobs: int = Field(default=100, ge=1)
    """Jobs that wait or run."""
    rate: float | None = Field(default=None, gt=0)
    """Requests per second of one token (or, without tokens, one address) and worker; None: unlimited."""


class ServeConfig(BaseModel):
    """What is served, where, and to whom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stores: tuple[Path, ...]
    folder: Path | None = None
    """Folder of the service's own files; by default beside the first store."""
    states: str | None = None
    """URL of the database of item states; None: `items.db` in the click model's folder."""
    log: tuple[str, ...] = ()
    """Files of the click model's training log, or patterns: what the job `train` learns from, with the service's own events."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1)
    token_file: Path | None = None
    """File of tokens; without it and tokens in the environment everyone may do everything, on a loopback address only."""
    clicked: tuple[str, ...] = ("click",)
    """Event types that are clicks; other types are impressions."""
    impression_window: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds for which an impression with an id waits for a click before it counts as none; None: it counts when it comes."""
    calibrate_every: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds after which the click model's calibration is fitted anew, by the job `calibrate`; None: when it is asked for."""
    backbone: str | None = None
    """Folder or hub name of the classifiers' backbone, if it has moved."""
    limits: Limits = Limits()

    @property
    def own_folder(self) -> Path:
        """Folder of the service's own files: the key of request ids, jobs and versions."""
        first = self.stores[0].resolve()
        return self.folder or first.with_name(f"{first.name}.service")

    def require_safe(self, has_tokens: bool) -> None:
        """Raises SettingError for an open address without tokens."""
        if not has_tokens and self.host not in LOOPBACK:
            raise SettingError(
                f"--host {self.host}: others can reach this address; give --token-file FILE or NEWCOMER_TOKENS, or leave --host out"
            )

    def to_environment(self) -> Mapping[str, str]:
        """Environment of a worker process."""
        return {VARIABLE: self.model_dump_json()}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Inverse of `to_environment`."""
        return cls.model_validate_json(environment[VARIABLE])
