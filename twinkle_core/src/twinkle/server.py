"""The server kind: a service over HTTP.

``Server`` is the contract; any other name is looked up among the installed plugins' servers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from twinkle.component import component_attributes


class Server(ABC):
    """A service that runs until it is stopped."""

    @abstractmethod
    def serve(self) -> None:
        """Run until interrupted."""


__getattr__, __dir__ = component_attributes(__name__, ["server"], globals())
