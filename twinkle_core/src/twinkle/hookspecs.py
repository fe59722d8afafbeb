"""The hooks: where plugins take part in what isn't theirs.

A plugin implements a hook by a function of the same name; its manifest names the hooks and the module that holds them. An
implementation takes as many of the arguments as it needs, by name. One that raises costs a warning that names the plugin, and
nothing else. No hook is called inside a micro-batch loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    import typer

    from twinkle_hub.hub import Hub
    from twinkle_registry.trust import LoadRequest

hookspec = HookspecMarker("twinkle")
hookimpl = HookimplMarker("twinkle")
"""Marks an implementation that asks to come first or last: ``@hookimpl(tryfirst=True)``. Without such a wish it isn't needed."""

DoctorFinding = tuple[Literal["ok", "warning", "error"], str, str]
"""What ``twinkle_doctor`` reports: how it stands, the subject, and what was found and what to do, in one line."""


@hookspec
def twinkle_register_hub() -> Hub | Sequence[Hub]:  # type: ignore[empty-body]  # a specification has no body
    """Return the hub, or the hubs, that the plugin adds. Called once, before the first reference to a hub is used.

    A hub whose scheme is already taken is left out with a warning.
    """


@hookspec
def twinkle_check_load(request: LoadRequest) -> str | None:
    """Return the reason why the component of ``request`` may not be loaded, or ``None``.

    Any denial wins, and is a ``TrustError``. Asked for every component; for code from a hub twice, before anything is fetched
    (``request.digest`` is ``None`` then, unless the reference or the lock pins it) and once its digest, entry and capabilities are
    known. It comes after the operator's denials and before every permission. Where the check itself fails, code from a hub isn't
    loaded; installed components are, with a warning.
    """


@hookspec
def twinkle_component_loaded(request: LoadRequest, component: Any) -> None:
    """Called after a component was loaded by reference, with the class or function. For bookkeeping; it can't be replaced."""


@hookspec
def twinkle_worker_start(rank: int, world_size: int, device: str) -> None:
    """Called in every process that takes part in training or sampling, before it makes its first component."""


@hookspec
def twinkle_run_start(run_id: str, config: Mapping[str, Any]) -> None:
    """Called on the main process when a run begins, with what it was configured with, as plain data."""


@hookspec
def twinkle_step_end(run_id: str, step: int, measurements: Mapping[str, float]) -> None:
    """Called on the main process after an optimizer step, not after a micro-batch; ``step`` counts from 1."""


@hookspec
def twinkle_run_end(run_id: str, error: BaseException | None) -> None:
    """Called on the main process when a run is over; ``error`` is what ended it, or ``None``."""


@hookspec
def twinkle_checkpoint_save(folder: Path, step: int) -> None:
    """Called on the main process once a checkpoint is complete, with its final folder. The folder may be added to."""


@hookspec
def twinkle_add_cli(app: typer.Typer) -> None:
    """Add commands or command groups to ``app``, the ``twinkle`` command. Not called for commands of Twinkle's own."""


@hookspec
def twinkle_doctor() -> Iterable[DoctorFinding]:  # type: ignore[empty-body]  # a specification has no body
    """Return what ``twinkle plugins doctor`` should report of the plugin: the devices, services and versions that it leans on."""
