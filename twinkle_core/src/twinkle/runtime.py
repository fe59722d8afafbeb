"""The runtime kind: where components run. And the one owner of this process's runtime.

``Runtime`` is the contract; any other name is looked up among the installed plugins' runtimes. ``initialize`` chooses the
runtime, ``current_runtime`` gives it. Without ``initialize`` everything runs in this process (or this torchrun rank).
Imports torch nowhere; a runtime does, once processes have to talk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from twinkle.component import component_attributes, load_component
from twinkle.device_group import DeviceGroup, check_groups
from twinkle.device_mesh import DeviceMesh
from twinkle.errors import ComponentNotFoundError, ConfigError, MissingRequirementError
from twinkle.run_hooks import RunHooks
from twinkle.run_notice import RunNotices
from twinkle.run_record import RunRecord
from twinkle.run_sources import plain_data
from twinkle.seeding import Seeds

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from twinkle.remote import RemoteSpec

T = TypeVar("T")
ReduceOp = Literal["sum", "mean", "max", "min"]


@dataclass(frozen=True)
class RuntimeSettings:
    """What ``initialize`` was asked for; see there."""

    mode: str = "local"
    nproc_per_node: int = 8
    ncpu_proc_per_node: int = 8
    seed: int | None = None
    full_determinism: bool = False
    groups: tuple[DeviceGroup, ...] = ()
    global_device_mesh: DeviceMesh | None = None
    lazy_collect: bool = True
    name: str | None = None
    notifier: object = None

    def __post_init__(self) -> None:
        for field in ("nproc_per_node", "ncpu_proc_per_node"):
            if not isinstance(getattr(self, field), int) or getattr(self, field) < 1:
                raise ConfigError(f"{field} has to be a positive number of processes, not {getattr(self, field)!r}.")
        # torch takes 64 bits.
        if self.seed is not None and (not isinstance(self.seed, int) or not 0 <= self.seed < 2**64):
            raise ConfigError(f"seed has to be a whole number from 0 to 2**64 - 1, or None, not {self.seed!r}.")
        if self.global_device_mesh is not None and not isinstance(self.global_device_mesh, DeviceMesh):
            raise ConfigError(f"global_device_mesh has to be a DeviceMesh, not {self.global_device_mesh!r}.")


class Workers(ABC):
    """The processes that a component runs in, as its stand-in in the driver sees them."""

    @abstractmethod
    def call(self, spec: RemoteSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a method: dispatch the arguments, execute where ``spec`` says, collect the results."""


class Runtime(ABC):
    """Where components run.

    In the process that drives a cluster this is a world of one, and everything that joins ranks gives back what it got; in a
    process that is one of several ranks, ``LocalRuntime`` joins them by torch.distributed.
    """

    has_workers: bool = False
    """Whether components given a ``remote_group`` are built in other processes (``create_workers``), and not right here."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self.settings = settings
        self.seeds = Seeds(settings.seed, settings.full_determinism)
        self.seeds.apply()
        self.record = RunRecord()
        self.hooks = RunHooks(settings.name, is_master=lambda: self.is_master)
        self.notices = RunNotices(settings.notifier if self.is_master else None, settings.name, self.hooks)

    @property
    def rank(self) -> int:
        """This process's number among those that work together."""
        return 0

    @property
    def world_size(self) -> int:
        """How many processes work together."""
        return 1

    @property
    def is_master(self) -> bool:
        """Whether this is the process that writes logs and files that are needed once."""
        return self.rank == 0

    @property
    def device(self) -> str:
        """The torch name of this process's device: ``"cpu"``, ``"cuda:0"``, …"""
        return "cpu"

    @property
    def device_mesh(self) -> DeviceMesh:
        """The mesh of components that don't bring their own."""
        return self.settings.global_device_mesh or DeviceMesh.from_sizes()

    def create_workers(
        self,
        component: type,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        execute: str,
        remote_group: str,
        device_mesh: DeviceMesh | None,
    ) -> Workers:
        """Build ``component(*args, **kwargs, device_mesh=device_mesh)`` in the processes of ``remote_group``.

        Called only where ``has_workers``, as ``@remote_class(execute=...)`` and its caller said.

        Raises:
            ConfigError: there is no such group.
            MeshError: the mesh doesn't fit the group.
        """
        raise ConfigError(f"The {self.settings.mode} runtime has no workers to build {component.__qualname__} in.")

    @abstractmethod
    def placements(self) -> list[Mapping[str, Any]]:
        """One row for each rank, for ``get_device_placement``: at least ``rank`` and ``device``."""

    def ensure_process_group(self) -> None:
        """Have torch.distributed ready where there are other ranks; seeds torch. Whoever brings torch into a run calls it first."""
        self.seeds.apply()
        self.start_worker()

    def start_worker(self) -> None:
        """Tell plugins, once, that this process takes part in training or sampling."""
        self.hooks.start_worker(self.rank, self.world_size, lambda: self.device)

    def process_group(self, *dims: str, mesh: DeviceMesh | None = None) -> ProcessGroup | None:
        """The group of ranks that vary along ``dims`` of ``mesh`` around this one; None in a world of one.

        Every rank has to ask for the same groups in the same order.
        """
        return None

    def all_gather_object(self, value: T) -> list[T]:
        """``value`` of every rank (anything that pickles), in order of rank."""
        return [value]

    def gather_data(self, value: T) -> list[T]:
        """``value`` of one rank for each data rank of ``device_mesh``, in order. Every rank has to call it."""
        values = self.all_gather_object(value)
        return [values[rank] for rank in self.device_mesh.data_representatives()] if len(values) > 1 else values

    def broadcast_object(self, value: T, source: int = 0) -> T:
        """``value`` of rank ``source``."""
        return value

    def all_reduce(self, tensor: Tensor, op: ReduceOp = "sum", *, group: ProcessGroup | None = None) -> Tensor:
        """``tensor``, any shape, reduced in place over the ranks (of ``group``), and returned."""
        return tensor

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.all_gather_object(None)

    @abstractmethod
    def close(self) -> None:
        """Give back what this runtime holds."""


class _Owner:
    """Holds the runtime of this process."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.runtime: Runtime | None = None
        self.record = RunRecord()  # of what is used before there is a runtime; it becomes the first one's
        self.by_default = False  # nobody called initialize yet


_OWNER = _Owner()


def current_runtime() -> Runtime:
    """The runtime of this process: what ``initialize`` made, or else a local one with its defaults."""
    with _OWNER.lock:
        if _OWNER.runtime is None:
            _OWNER.runtime = _make(RuntimeSettings())
            _OWNER.runtime.record.take_over(_OWNER.record, made=True)
            _OWNER.by_default = True
        return _OWNER.runtime


def current_record() -> RunRecord:
    """The bill of materials of this process's run, also where it has no runtime yet; makes none."""
    with _OWNER.lock:
        return _OWNER.record if _OWNER.runtime is None else _OWNER.runtime.record


@contextmanager
def use_runtime(runtime: Runtime | None) -> Iterator[None]:
    """Have ``runtime`` be the current one for a while (None: as in a fresh process), and the earlier one again afterwards."""
    with _OWNER.lock:
        before, _OWNER.runtime = _OWNER.runtime, runtime
        record, _OWNER.record = _OWNER.record, RunRecord()
    try:
        yield
    finally:
        with _OWNER.lock:
            made, _OWNER.runtime = _OWNER.runtime, before
            _OWNER.record = record
        if made is not None and made is not runtime and made is not before:
            _retire(made)


def initialize(
    mode: str = "local",
    nproc_per_node: int = 8,
    ncpu_proc_per_node: int = 8,
    seed: int | None = 42,
    full_determinism: bool = False,
    groups: Iterable[DeviceGroup] | DeviceGroup | None = None,
    global_device_mesh: DeviceMesh | None = None,
    lazy_collect: bool = True,
    name: str | None = None,
    notifier: object = None,
) -> Runtime:
    """Choose where components run, for this process, from now on. Without it: here, unseeded.

    Args:
        mode: ``"local"`` (this process, or each rank of torchrun), ``"ray"``, or a reference to a component of kind ``runtime``.
        nproc_per_node: devices that a node has; the local runtime goes by the launcher instead.
        ncpu_proc_per_node: processes that a node takes for groups on cpu; likewise.
        seed: for Python, numpy and torch, the same on every rank; what isn't imported yet gets it with the first model. None: none.
        full_determinism: also ``torch.use_deterministic_algorithms(True)``: slower, and an error where torch has no such algorithm.
        groups: the hardware, by name, for runtimes that place components on it.
        global_device_mesh: the mesh of components that don't bring their own. Default: all ranks are data parallel.
        lazy_collect: whether remote results stay where they are until somebody looks.
        name: of the run, for logs and the notifier.
        notifier: told when the run begins, ends or fails: an instance or reference of the kind ``notifier``.

    Raises:
        MeshError: the mesh doesn't fit the number of processes.
        ConfigError: anything else that can't be.
        MissingRequirementError: no installed plugin provides the runtime; the message says which to install.
    """
    given = () if groups is None else (groups,) if isinstance(groups, DeviceGroup) else groups
    settings = RuntimeSettings(
        mode=mode,
        nproc_per_node=nproc_per_node,
        ncpu_proc_per_node=ncpu_proc_per_node,
        seed=seed,
        full_determinism=full_determinism,
        groups=check_groups(given),
        global_device_mesh=global_device_mesh,
        lazy_collect=lazy_collect,
        name=name,
        notifier=notifier,
    )
    with _OWNER.lock:
        made = _make(settings)
        before, _OWNER.runtime = _OWNER.runtime, made
        # What was used before initialize belongs to this run; an earlier run leaves it no more than what was imported.
        made.record.take_over(_OWNER.record if before is None else before.record, made=before is None or _OWNER.by_default)
        _OWNER.by_default = False
    if before is not None:
        _retire(before)
    if not made.has_workers:
        made.start_worker()
    made.notices.begin(f"{settings.mode} runtime, {made.device_mesh}", _run_config(made))
    return made


def is_master() -> bool:
    """Whether this is the process that writes logs and files that are needed once."""
    return current_runtime().is_master


def get_device_placement() -> str:
    """Which rank runs where, as a table for people: groups, the global mesh, and each rank's device and coordinates."""
    runtime = current_runtime()
    rows = runtime.placements()
    lines = [f"{runtime.settings.mode} runtime, {len(rows)} rank{'s' * (len(rows) != 1)}, {runtime.device_mesh}"]
    lines += [f"group {group}" for group in runtime.settings.groups]
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(lines)


def _run_config(runtime: Runtime) -> dict[str, Any]:
    """What a run was configured with, as plain data."""
    given = {field.name: getattr(runtime.settings, field.name) for field in fields(runtime.settings) if field.name != "notifier"}
    plain: dict[str, Any] = plain_data({**given, "world_size": runtime.world_size, "device_mesh": runtime.device_mesh})
    return plain


def _retire(runtime: Runtime) -> None:
    runtime.notices.end()
    runtime.close()


def _make(settings: RuntimeSettings) -> Runtime:
    if settings.mode == "local":
        from twinkle.local_runtime import LocalRuntime

        return LocalRuntime(settings)
    reference = "RayRuntime" if settings.mode == "ray" else settings.mode
    try:
        found: Callable[[RuntimeSettings], Runtime] = load_component("runtime", reference)
    except ComponentNotFoundError as error:
        if settings.mode == "ray":
            raise MissingRequirementError(
                "mode='ray' needs the runtime 'RayRuntime', which no installed plugin provides: pip install twinkle-plugin-ray"
            ) from error
        raise ConfigError(f"There is no runtime {settings.mode!r}: mode is 'local', 'ray', or a component. {error}") from error
    return found(settings)


__getattr__, __dir__ = component_attributes(__name__, ["runtime"], globals())
