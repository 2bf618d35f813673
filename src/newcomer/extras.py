"""Optional dependencies: the extra of the package (`pip install newcomer[EXTRA]`) that installs each of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from newcomer.errors import MissingExtraError

EXTRAS: Mapping[str, str] = {
    "typer": "cli",
    "rich": "cli",
    "matplotlib": "report",
    "jinja2": "report",
    "sklearn": "sklearn",
    "yaml": "data",
    "accelerate": "distributed",
    "timm": "timm",
    "psycopg": "postgres",
    "valkey": "valkey",
    "peft": "peft",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "ray": "ray",
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "httpx": "client",
    "opentelemetry": "otel",
    "obstore": "remote",
    "backports": "zstd",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
    "trackio": "trackio",
}
"""Importable module → extra."""


def missing_extra(error: ImportError) -> MissingExtraError | None:
    """The error to report for a failed import, if an extra would repair it.

    >>> missing_extra(ModuleNotFoundError(name="matplotlib.figure"))
    MissingExtraError("matplotlib is not installed; run: pip install 'newcomer[report]'")
    """
    module = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or module not in EXTRAS:
        return None
    return MissingExtraError(f"{module} is not installed; run: pip install 'newcomer[{EXTRAS[module]}]'")


@contextmanager
def optional_imports() -> Iterator[None]:
    """Within, a missing optional dependency raises MissingExtraError, one sentence with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        raise missing from error
