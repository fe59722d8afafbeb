"""The kinds of component: for each its name, the module that people import from, its base class and contract version.

A table and its look-up. Imports no base class until one is asked for, and knows nothing of how components are found.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from twinkle.errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """A kind of component.

    ``functions`` says whether a plain function may stand in for an instance.
    """

    name: str
    module: str
    base: str
    functions: bool = False
    contract: int = 1

    def base_class(self) -> type:
        """The class in ``twinkle.<module>`` that components of this kind derive from."""
        found: type = getattr(importlib.import_module(self.module), self.base)
        return found


_ROWS = [
    Kind("dataset", "twinkle.dataset", "BaseDataset"),
    Kind("dataloader", "twinkle.dataloader", "BaseDataLoader"),
    Kind("preprocessor", "twinkle.preprocessor", "Preprocessor", functions=True),
    Kind("filter", "twinkle.preprocessor", "Filter", functions=True),
    Kind("processor", "twinkle.processor", "Processor"),
    Kind("template", "twinkle.template", "BaseTemplate"),
    Kind("tool_call_parser", "twinkle.template", "ToolCallParser"),
    Kind("loss", "twinkle.loss", "Loss", functions=True),
    Kind("metric", "twinkle.metric", "Metric"),
    Kind("notifier", "twinkle.notifier", "Notifier", functions=True),
    Kind("tracker", "twinkle.tracker", "Tracker"),
    Kind("reward", "twinkle.reward", "Reward", functions=True),
    Kind("advantage", "twinkle.advantage", "Advantage", functions=True),
    Kind("model", "twinkle.model", "TwinkleModel"),
    Kind("sampler", "twinkle.sampler", "Sampler"),
    Kind("optimizer", "twinkle.optimizer", "Optimizer"),
    Kind("lr_scheduler", "twinkle.lr_scheduler", "LRScheduler"),
    Kind("patch", "twinkle.patch", "Patch", functions=True),
    Kind("kernel", "twinkle.kernel", "Kernel", functions=True),
    Kind("checkpoint_engine", "twinkle.checkpoint_engine", "CheckpointEngine"),
    Kind("runtime", "twinkle.runtime", "Runtime"),
    Kind("server", "twinkle.server", "Server"),
]

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ROWS}


def get_kind(name: str) -> Kind:
    """The kind called ``name``.

    Raises:
        ConfigError: there is no such kind; the message lists them all.
    """
    try:
        return KINDS[name]
    except KeyError:
        raise ConfigError(f"There is no kind of component named {name!r}. Kinds: {', '.join(KINDS)}.") from None
