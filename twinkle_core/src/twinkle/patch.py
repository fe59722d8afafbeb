"""The patch kind: a reversible change to a model's code.

``Patch`` is the contract, ``apply_patch`` applies one by reference. Any other name is looked up among the installed plugins'
patches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twinkle.component import component_attributes, make_component


class Patch(ABC):
    """Changes a module in place. Applying it twice is the same as once; ``unpatch`` leaves no trace."""

    @abstractmethod
    def __call__(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        """Apply to ``module``; returns the patched module, or None where it is patched in place."""

    def unpatch(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        """Undo.

        Raises:
            TypeError: this patch can't be undone.
        """
        raise TypeError(f"{type(self).__name__} can't be undone: it has no unpatch().")


def apply_patch(module: Any, patch: object, /, *args: Any, **kwargs: Any) -> Any:
    """Apply ``patch`` (an instance, class, function or reference) to ``module`` and return the module."""
    built = make_component("patch", patch)
    result = built(module, *args, **kwargs)
    return module if result is None else result


__getattr__, __dir__ = component_attributes(__name__, ["patch"], globals())
