"""Marks classes and methods that can run elsewhere: ``@remote_class`` and ``@remote_function``.

A marked class stays what it is: same identity, signature and docstring. In the local runtime its methods are called directly.
In a runtime with workers, building it with ``remote_group=`` builds it there, and the instance here stands in for it: calls of
marked methods are dispatched, executed and collected as they declare. Knows nothing of how workers are reached.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

from twinkle.device_mesh import DeviceMesh
from twinkle.dispatch import CollectMode, DispatchMode, check_modes
from twinkle.errors import ConfigError
from twinkle.runtime import Workers, current_runtime

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
C = TypeVar("C", bound=type)

Execute = Literal["first", "peer", "all"]

_WORKERS = "_twinkle_workers"
_SPEC = "__twinkle_remote__"


@dataclass(frozen=True)
class RemoteSpec:
    """How a marked method runs in a runtime with workers."""

    name: str
    dispatch: DispatchMode = "all"
    execute: Execute = "all"
    collect: CollectMode = "none"
    sync: bool = False
    lazy_collect: bool = True
    data: tuple[str, ...] | None = None
    parameters: tuple[str, ...] = ()

    def mesh_for(self, mesh: DeviceMesh | None, n_workers: int) -> DeviceMesh | None:
        """The mesh that a runtime hands to ``dispatch`` and ``collect``: None where each of ``n_workers`` counts by itself."""
        together = self.execute == "all" and self.dispatch != "slice"
        return mesh if together and mesh is not None and mesh.world_size == n_workers else None


def remote_function(
    dispatch: DispatchMode = "all",
    execute: Execute = "all",
    collect: CollectMode = "none",
    sync: bool = False,
    lazy_collect: bool = True,
    *,
    data: Collection[str] | None = None,
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Mark a method of a ``remote_class``.

    Args:
        dispatch: what each worker gets: everything (``"all"``), a slice of the batch data by worker (``"slice"``) or by data rank
            of the mesh (``"slice_dp"``), or ``dispatch(length, i, args, kwargs, device_mesh) -> (args, kwargs)`` for worker ``i``.
        execute: on which workers: the first, the one with the caller's own number (``"peer"``), or all.
        collect: what becomes of the results, see ``twinkle.dispatch.collect``; or ``collect(results, device_mesh=...)``.
        sync: wait for the call to end even where its result isn't looked at.
        lazy_collect: whether the result may stay where it is until somebody looks.
        data: names of the parameters that hold batch data, to be sliced. Default: the safe rule of ``twinkle.dispatch``.

    Raises:
        ConfigError: an unknown mode, or ``data`` names what the method doesn't have.
    """
    check_modes(dispatch, collect)
    _check_execute(execute)

    def mark(function: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        spec = RemoteSpec(
            name=function.__name__,
            dispatch=dispatch,
            execute=execute,
            collect=collect,
            sync=sync,
            lazy_collect=lazy_collect,
            data=None if data is None else tuple(data),
            parameters=_parameters(function, data or ()),
        )

        @functools.wraps(function)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            workers: Workers | None = getattr(self, _WORKERS, None)
            if workers is None:
                return function(self, *args, **kwargs)
            result: R = workers.call(spec, args, kwargs)
            return result

        setattr(call, _SPEC, spec)
        return call

    return mark


def remote_class(execute: Execute = "peer") -> Callable[[C], C]:
    """Mark a class whose instances can live in workers.

    Building it then also takes ``remote_group`` (a device group's name) and ``device_mesh``. Where it is built right here,
    ``remote_group`` is ignored, and ``device_mesh`` goes to ``__init__`` if that takes it.

    Args:
        execute: which of several drivers' workers build it, as for ``remote_function``.
    """
    _check_execute(execute)

    def mark(cls: C) -> C:
        original = cls.__init__  # type: ignore[misc]  # as below
        takes_group = _takes(original, "remote_group", or_any=False)
        takes_mesh = _takes(original, "device_mesh", or_any=True)

        @functools.wraps(original)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            group = kwargs.get("remote_group")
            if group is not None and _is_stand_in(self, init, group):
                rest = {name: value for name, value in kwargs.items() if name not in ("remote_group", "device_mesh")}
                mesh = kwargs.get("device_mesh")
                workers = current_runtime().create_workers(
                    type(self), args, rest, execute=execute, remote_group=group, device_mesh=mesh
                )
                setattr(self, _WORKERS, workers)
                return
            if not takes_group:
                kwargs.pop("remote_group", None)
            if not takes_mesh:
                kwargs.pop("device_mesh", None)
            original(self, *args, **kwargs)

        setattr(cls, _WORKERS, None)  # so that looking for workers is one quick look at the class, even where it has __getattr__
        cls.__init__ = init  # type: ignore[misc]  # subclasses may differ, which _is_stand_in looks at
        return cls

    return mark


def remote_spec(function: object) -> RemoteSpec | None:
    """How a marked method runs, or None where it isn't marked."""
    found: RemoteSpec | None = getattr(function, _SPEC, None)
    return found


def workers_of(instance: object) -> Workers | None:
    """The workers that ``instance`` stands in for, or None where it is the component itself."""
    found: Workers | None = getattr(instance, _WORKERS, None)
    return found


def _is_stand_in(instance: object, init: Callable[..., None], group: str) -> bool:
    """Whether ``instance`` is to stand in for workers; sees that its class can.

    Raises:
        ConfigError: a subclass isn't marked, or overrides a marked method with one that isn't; it would run here, unnoticed.
    """
    cls = type(instance)
    if not current_runtime().has_workers:
        return False
    if cls.__init__ is not init:
        raise ConfigError(
            f"{cls.__qualname__} derives from a remote class, but isn't one: its own __init__ would run in the driver. "
            f"Mark it with @remote_class() to build it in remote_group={group!r}."
        )
    for base in cls.__mro__[1:]:
        for name, value in vars(base).items():
            if remote_spec(value) is not None and remote_spec(getattr(cls, name)) is None:
                raise ConfigError(
                    f"{cls.__qualname__}.{name} overrides {base.__qualname__}.{name}, which is a remote function, with one "
                    f"that isn't: it would run in the driver. Mark it with @remote_function(...) too."
                )
    return True


def _takes(function: Callable[..., Any], name: str, *, or_any: bool) -> bool:
    """Whether ``function`` has a parameter of that name (``or_any``: or ``**kwargs``)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in C
        return False
    if function is object.__init__:  # its signature says (*args, **kwargs), but it takes nothing
        return False
    return any(row.name == name or (or_any and row.kind is row.VAR_KEYWORD) for row in parameters)


def _parameters(function: Callable[..., Any], data: Collection[str]) -> tuple[str, ...]:
    """The names of the parameters that can be given by position, without ``self``."""
    rows = list(inspect.signature(function).parameters.values())[1:]
    names = {row.name for row in rows}
    unknown = [name for name in data if name not in names]
    if unknown and not any(row.kind is row.VAR_KEYWORD for row in rows):
        raise ConfigError(
            f"{function.__qualname__} has no parameter {', '.join(map(repr, unknown))} to slice. It has: {', '.join(names)}."
        )
    return tuple(row.name for row in rows if row.kind in (row.POSITIONAL_ONLY, row.POSITIONAL_OR_KEYWORD))


def _check_execute(execute: str) -> None:
    if execute not in get_args(Execute):
        raise ConfigError(f"execute is one of {', '.join(get_args(Execute))}, not {execute!r}.")
