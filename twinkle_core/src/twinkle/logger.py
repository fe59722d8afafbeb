"""Logging for people who train: one handler, on the master rank, without secrets.

Leans on the standard library alone. Leaves the root logger as it is: where an application has given it handlers, those show our
records (they propagate) and ours keeps quiet. Hub and service tokens are blotted out before any handler sees a record.
"""

from __future__ import annotations

import logging
import os
import re
import sys

from twinkle.errors import ConfigError
from twinkle.launch import Launch
from twinkle_hub.settings import is_set

ALL_RANKS_VARIABLE = "TWINKLE_LOG_ALL_RANKS"
LEVEL_VARIABLE = "TWINKLE_LOG_LEVEL"

_SECRETS = re.compile(
    r"(?P<keep>\bBearer\s+|://[^/\s:@]*:(?=[^/\s@]+@))[^\s@'\"]+"  # an authorization header; user:password@host
    r"|\bhf_[A-Za-z0-9]{12,}"  # Hugging Face
    r"|\bms-[0-9a-fA-F]{8}-[0-9a-fA-F-]{8,}"  # ModelScope
    r"|\btml-[A-Za-z0-9_\-]{6,}",  # Tinker
    re.IGNORECASE,
)


def get_logger(name: str = "twinkle") -> logging.Logger:
    """The logger of that name, showing INFO and above (``TWINKLE_LOG_LEVEL`` changes that) on stderr, on rank 0 only.

    ``TWINKLE_LOG_ALL_RANKS=1`` shows every rank's records, with the rank before each.
    """
    logger = logging.getLogger(name)
    if not any(isinstance(row, _Guard) for row in logger.filters):
        logger.addFilter(_Guard())
    top = logging.getLogger("twinkle") if name.startswith("twinkle.") else logger
    if not any(isinstance(row, _MasterHandler) for row in top.handlers):
        top.addHandler(_MasterHandler())
        if top.level == logging.NOTSET:
            top.setLevel(_level())
    return logger


def _level() -> int:
    name = os.environ.get(LEVEL_VARIABLE, "INFO").upper()
    level = logging.getLevelNamesMapping().get(name)
    if level is None:
        names = ", ".join(name for name, value in logging.getLevelNamesMapping().items() if value)
        raise ConfigError(f"{LEVEL_VARIABLE}={os.environ[LEVEL_VARIABLE]!r} is no level. Levels: {names}.")
    return level


def redact(text: str) -> str:
    """``text`` without hub tokens, bearer tokens and passwords in addresses."""
    return _SECRETS.sub(lambda found: f"{found['keep'] or ''}***", text)


class _Guard(logging.Filter):
    """Lets a record through on the ranks that write, and blots out secrets in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not _writes():
            return False
        _clean(record)
        return True


class _MasterHandler(logging.Handler):
    """Writes to whatever ``sys.stderr`` is at the time, unless the application's own handlers do."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
        self.addFilter(_Guard())

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers:
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # as every handler of the standard library: logging never ends what it reports on
            self.handleError(record)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = redact(super().format(record))
        return f"[rank {_launch().rank}] {text}" if _all_ranks() else text


def _clean(record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except Exception:  # a filter that raises would end the program that logs; and the standard complaint would show secrets
        message = f"{record.msg} (its arguments don't fit it: {record.args!r})"
        record.msg, record.args = message, ()
    cleaned = redact(message)
    if cleaned != message:
        record.msg, record.args = cleaned, ()
    if record.exc_info and not record.exc_text:
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))


def _all_ranks() -> bool:
    return is_set(os.environ.get(ALL_RANKS_VARIABLE))


def _launch() -> Launch:
    try:
        return Launch.from_environment()
    except ConfigError:  # whoever needs the rank will say so; a logger has to log
        return Launch()


def _writes() -> bool:
    return _launch().rank == 0 or _all_ranks()
