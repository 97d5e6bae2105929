"""Logging under our own names; the root logger and its handlers are Ray's."""

import logging
import sys
from typing import TextIO

PACKAGES = ("asit_core", "asit_platform", "asit_dashboards")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is now, so redirected streams are respected."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # pyright: ignore[reportIncompatibleVariableOverride]
        return sys.stderr


class _PlainFormatter(logging.Formatter):
    """`message` for information, `warning: message` for what needs attention."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


def configure_logging(level: int = logging.INFO) -> None:
    """Send our packages' records to stderr; calling it again only changes the level.

    Args:
        level: Lowest level that is shown, as in `logging`.
    """
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
            handler = _StderrHandler()
            handler.setFormatter(_PlainFormatter())
            logger.addHandler(handler)
