"""The service's log: JSON lines on stderr."""

import json
import logging
import sys
from typing import Any

from newcomer.errors import show_data_warnings

log = logging.getLogger("newcomer.server")


OTHERS = ("uvicorn", "python_multipart", "py.warnings")
"""Loggers of requests that are not HTTP and of uvicorn's own errors, of forms that are none, and of warnings."""


class JsonLines(logging.Formatter):
    """Log records as JSON, one a line; extra fields as keys. Bodies, tokens and query strings are never logged."""

    FIELDS = ("request_id", "method", "route", "status", "ms", "job", "model")

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        content |= {name: getattr(record, name) for name in self.FIELDS if hasattr(record, name)}
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content)


def log_to_stderr() -> logging.Logger:
    """The service's log, written as JSON lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for logger in (log, *map(logging.getLogger, OTHERS)):
        logger.handlers, logger.propagate = [handler], False
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    show_data_warnings(log.warning, "default")  # requests bring them again and again
    return log
