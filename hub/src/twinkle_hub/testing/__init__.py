"""Loopback servers that speak the hubs' protocols, for tests. Not part of the wheel."""

from twinkle_hub.testing.hf_server import HfServer
from twinkle_hub.testing.loopback import Fault, Request
from twinkle_hub.testing.ms_server import MsServer

__all__ = ["Fault", "HfServer", "MsServer", "Request"]
