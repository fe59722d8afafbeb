"""Twinkle: post-training large language models with components from anywhere.

Everything here is loaded when it is first used: ``import twinkle`` imports neither torch nor transformers nor any plugin.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what type checkers take for true; importing typing for it would cost a tenth of the start-up

if TYPE_CHECKING:
    from twinkle.device_group import DeviceGroup as DeviceGroup
    from twinkle.device_mesh import DeviceMesh as DeviceMesh
    from twinkle.logger import get_logger as get_logger
    from twinkle.platform import Platform as Platform
    from twinkle.remote import remote_class as remote_class
    from twinkle.remote import remote_function as remote_function
    from twinkle.runtime import get_device_placement as get_device_placement
    from twinkle.runtime import initialize as initialize
    from twinkle.runtime import is_master as is_master

__version__ = "0.1.0"

_HOMES = {
    "DeviceGroup": "twinkle.device_group",
    "DeviceMesh": "twinkle.device_mesh",
    "Platform": "twinkle.platform",
    "get_device_placement": "twinkle.runtime",
    "get_logger": "twinkle.logger",
    "initialize": "twinkle.runtime",
    "is_master": "twinkle.runtime",
    "remote_class": "twinkle.remote",
    "remote_function": "twinkle.remote",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    import importlib

    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'twinkle' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
