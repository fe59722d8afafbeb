"""Calling the hooks that go with a run: workers, begin and end, steps, checkpoints.

One object for each runtime. Which hooks any plugin implements is looked up once: where there is none, a step costs one look into a
set. What breaks in a plugin's hook is the registry's warning and nothing else. Knows nothing of what plugins do with them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

HOOKS = frozenset({"twinkle_worker_start", "twinkle_run_start", "twinkle_step_end", "twinkle_run_end", "twinkle_checkpoint_save"})
"""The hooks that this module calls."""


class RunHooks:
    """The hooks of one run in one process.

    Args:
        name: the run's name; ``run_id`` begins with it.
        is_master: whether this is the process in which the hooks of the run are called; those of workers are called in each.
    """

    def __init__(self, name: str | None, *, is_master: Callable[[], bool]) -> None:
        self.run_id = f"{name or 'run'}-{uuid.uuid4().hex[:12]}"
        self._is_master = is_master
        self._worker_started = False

    @cached_property
    def wanted(self) -> frozenset[str]:
        """The hooks that some installed plugin implements, as of the first question."""
        from twinkle.component import default_registry

        return HOOKS.intersection(name for plugin in default_registry().plugins() for name in plugin.hook_names)

    def start_worker(self, rank: int, world_size: int, device: Callable[[], str]) -> None:
        """Tell, once, that this process takes part."""
        if not self._worker_started:
            self._worker_started = True
            if "twinkle_worker_start" in self.wanted:
                self._call("twinkle_worker_start", rank=rank, world_size=world_size, device=device())

    def start_run(self, config: Mapping[str, Any]) -> None:
        """Tell that the run began."""
        self._of_the_run("twinkle_run_start", run_id=self.run_id, config=config)

    def end_run(self, error: BaseException | None) -> None:
        """Tell that the run is over."""
        self._of_the_run("twinkle_run_end", run_id=self.run_id, error=error)

    def end_step(self, step: int, *, grad_norm: float, learning_rates: Sequence[float]) -> None:
        """Tell that an optimizer step was made; ``step`` counts from 1. Measurements: ``grad_norm``, ``lr``, ``lr/1``, …"""
        if "twinkle_step_end" in self.wanted:
            rates = {f"lr/{group}" if group else "lr": rate for group, rate in enumerate(learning_rates)}
            self._of_the_run("twinkle_step_end", run_id=self.run_id, step=step, measurements={"grad_norm": grad_norm, **rates})

    def saved_checkpoint(self, folder: Path, step: int) -> None:
        """Tell that a checkpoint is complete."""
        self._of_the_run("twinkle_checkpoint_save", folder=folder, step=step)

    def _of_the_run(self, name: str, **arguments: Any) -> None:
        if name in self.wanted and self._is_master():
            self._call(name, **arguments)

    def _call(self, name: str, **arguments: Any) -> None:
        from twinkle.component import default_registry

        default_registry().hooks.call(name, **arguments)
