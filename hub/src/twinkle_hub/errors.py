"""The root of Twinkle's errors, and the errors of hubs.

It stands in this distribution because this is the lowest one; ``twinkle.errors`` is where people import from.
"""

from __future__ import annotations


class TwinkleError(Exception):
    """The base of every error that Twinkle raises on purpose."""


class HubError(TwinkleError, OSError):
    """A repository can't be resolved, fetched or read; names the reference, and what to do next."""
