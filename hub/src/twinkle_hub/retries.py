"""Trying again where trying again may help: a hub that is busy, or a connection that broke.

The wait doubles from attempt to attempt; what the hub asks for (``Retry-After``) comes before that. Knows nothing of any hub.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from twinkle_hub.errors import HubBusyError, HubConnectionError

_T = TypeVar("_T")
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and how long to wait in between.

    Attributes:
        attempts: in all; 1 tries once.
        first_wait: seconds before the second attempt; doubled before each further one.
        longest_wait: no single wait is longer, in seconds. A hub that asks for more than that isn't waited for.
    """

    attempts: int = 3
    first_wait: float = 1.0
    longest_wait: float = 60.0

    def run(self, act: Callable[[], _T]) -> _T:
        """What ``act`` returns, in one of the attempts; the last attempt's error goes through, and any other kind at once.

        Raises:
            HubBusyError, HubConnectionError: as ``act`` raised it last.
        """
        wait = self.first_wait
        for attempt in range(1, self.attempts + 1):
            try:
                return act()
            except (HubBusyError, HubConnectionError) as error:
                asked = error.retry_after if isinstance(error, HubBusyError) else None
                pause = min(wait, self.longest_wait) if asked is None else asked
                if attempt == self.attempts or pause > self.longest_wait:
                    raise
                _LOGGER.warning("%s Attempt %d of %d; the next one in %.3g s.", error, attempt, self.attempts, pause)
            time.sleep(pause)
            wait *= 2
        raise ValueError(f"attempts is {self.attempts}; give 1 or more.")


DEFAULT = Retries()
"""For reading: three attempts, 1 and 2 seconds apart, or what the hub asks for."""


def parse_retry_after(value: str | None) -> float | None:
    """The seconds of a ``Retry-After`` header (RFC 9110, section 10.2.3: seconds, or a date); ``None`` where it can't be read."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(when.tzinfo)).total_seconds())
