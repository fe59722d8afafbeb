"""Spreading the arguments of a call over workers, and joining their results: pure functions of the mesh.

``dispatch`` then ``collect("flatten")`` is the identity on batches of every length. Knows nothing of processes; imports torch only
to join tensors that came back.

Only *batch data* is sliced; everything else goes to every worker as it is. What is batch data is declared
(``remote_function(data=("inputs", ...))``), or else found by this rule:

- a list or tuple that isn't empty and holds nothing but mappings (rows), which aren't messages or tools: those are one
  conversation, or configuration;
- an argument named in ``BATCH_NAMES``, where it is a list, a tuple, an array of one dimension or more, or *columns*;
- columns under any name, where they have ``input_ids`` or ``messages``.

Columns are a mapping whose lists, tuples and arrays all have the same length, as a collated batch; but not a single row (a mapping
whose ``input_ids`` is flat, or whose ``messages`` is one conversation), which is no batch.

So ``betas=[0.9, 0.95]`` and ``{"stop": ["a", "b"]}`` stay whole. All batch data of a call has to have the same length.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

from twinkle.device_mesh import DeviceMesh, balanced_slice
from twinkle.errors import ConfigError
from twinkle.lazy import value_of

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Dispatcher = Callable[..., Arguments]
Collector = Callable[..., Any]
DispatchMode = Literal["all", "slice", "slice_dp"] | Dispatcher
CollectMode = Literal["none", "flatten", "mean", "sum", "first", "last_pp"] | Collector

BATCH_NAMES = frozenset({"inputs", "trajectories", "rows", "rewards", "advantages", "old_logps", "ref_logps"})
"""Arguments that are batch data by their name, where nothing else is declared."""

_OF_BATCHES = frozenset({"input_ids", "messages"})
_OF_NO_ROW = frozenset({"role", "function"})  # the keys by which a message and a tool are known

_DISPATCH_MODES = ("all", "slice", "slice_dp")
_COLLECT_MODES = ("none", "flatten", "mean", "sum", "first", "last_pp")


def check_modes(dispatch: object, collect: object) -> None:
    """See that both are modes or callables.

    Raises:
        ConfigError: one isn't; the message lists the modes.
    """
    for word, value, modes in (("dispatch", dispatch, _DISPATCH_MODES), ("collect", collect, _COLLECT_MODES)):
        if not callable(value) and value not in modes:
            raise ConfigError(f"{word} is one of {', '.join(modes)}, or a callable; not {value!r}.")


def dispatch(
    mode: DispatchMode,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    mesh: DeviceMesh | None,
    n_workers: int,
    *,
    data: Collection[str] | None = None,
    parameters: Sequence[str] = (),
) -> list[Arguments]:
    """What each of ``n_workers`` workers is called with.

    ``"all"``: everything, for each. ``"slice"``: worker ``i`` gets slice ``i`` of ``n_workers`` of the batch data.
    ``"slice_dp"``: it gets the slice of its data rank in ``mesh`` (without a mesh: as ``"slice"``).
    A callable: ``mode(n_workers, i, args, kwargs, mesh)``.

    Slices are contiguous and differ in length by at most one, longer ones first; with fewer rows than parts the last are empty.

    Args:
        data: names of the arguments that are batch data; None: the rule above.
        parameters: names of the positional parameters, for ``args``.

    Raises:
        ConfigError: batch data differs in length, or what was declared as batch data can't be sliced; it names the arguments.
    """
    check_modes(mode, "none")
    args, kwargs = tuple(map(value_of, args)), {name: value_of(value) for name, value in kwargs.items()}
    if callable(mode):
        return [mode(n_workers, i, args, kwargs, mesh) for i in range(n_workers)]
    if mode == "all":
        return [(args, dict(kwargs)) for _ in range(n_workers)]
    named = dict(enumerate(args)) | kwargs
    names = {
        key: (parameters[key] if key < len(parameters) else f"argument {key}") if isinstance(key, int) else key for key in named
    }
    lengths = _lengths({key: (names[key], value) for key, value in named.items()}, data)
    total = next(iter(lengths.values()), 0)
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{names[key]} has {length}" for key, length in lengths.items())
        raise ConfigError(f"Batch data of one call has to have one length, but {shown}. Say what is batch data with data=(...).")
    return [_part(args, kwargs, lengths.keys(), rows) for rows in _slices(mode, total, mesh, n_workers)]


def collect(mode: CollectMode, results: Sequence[Any], mesh: DeviceMesh | None = None) -> Any:
    """One value from the workers' results, which are in order of rank.

    With a ``mesh`` of as many ranks, ``flatten``, ``mean`` and ``sum`` take one result for each data rank
    (``data_representatives``), so that what tensor- or pipeline-parallel ranks have in common counts once. After ``"slice"`` every
    worker's result counts: pass no mesh.

    - ``"none"``: the list of all results; a single one as it is.
    - ``"flatten"``: joined in order: lists, tuples, arrays along the first dimension, and columns of them.
    - ``"mean"``, ``"sum"``: of numbers, arrays, or mappings and tuples of those. The mean is plain: each data rank counts
      the same, however many rows it had. None where all are None.
    - ``"first"``: that of the first worker.
    - ``"last_pp"``: the list of the last pipeline stage's results, one for each data rank; a single one as it is.
    - a callable: ``mode(results, device_mesh=mesh)``.

    Raises:
        ConfigError: results that can't be joined so.
    """
    check_modes("all", mode)
    if callable(mode):
        return mode(list(results), device_mesh=mesh)
    if not results:
        raise ConfigError(f"There are no results to collect by {mode!r}.")
    if mode == "first":
        return results[0]
    if mode != "none" and mesh is not None and len(results) == mesh.world_size:
        results = [results[rank] for rank in mesh.data_representatives()]
    if mode in ("none", "last_pp"):
        return list(results) if len(results) > 1 else results[0]
    if mode == "flatten":
        return _joined(results)
    total = _sum(mode, results)
    return _scaled(total, len(results)) if mode == "mean" else total


def _slices(mode: str, total: int, mesh: DeviceMesh | None, n_workers: int) -> list[slice]:
    if mode == "slice" or mesh is None:
        return [balanced_slice(total, n_workers, i) for i in range(n_workers)]
    mesh.check_world(n_workers)
    return [mesh.get_slice(total, rank) for rank in range(n_workers)]


def _lengths(arguments: Mapping[Any, tuple[str, Any]], data: Collection[str] | None) -> dict[Any, int]:
    """The lengths of those arguments that are batch data."""
    found: dict[Any, int] = {}
    for key, (name, value) in arguments.items():
        declared = data is not None and name in data
        if value is None or (data is not None and not declared):
            continue
        length = _length(value, named=declared or name in BATCH_NAMES)
        if length is not None:
            found[key] = length
        elif declared:
            raise ConfigError(
                f"{name} was declared as batch data, but {type(value).__name__} can't be sliced by rows: "
                f"give a list of rows, an array, or columns of one length."
            )
    return found


def _length(value: Any, *, named: bool) -> int | None:
    """How many rows ``value`` has; None where it is no batch data."""
    if isinstance(value, Mapping):
        return _column_length(value) if named or not value.keys().isdisjoint(_OF_BATCHES) else None
    if isinstance(value, (list, tuple)):
        rows = named or (bool(value) and all(isinstance(row, Mapping) and row.keys().isdisjoint(_OF_NO_ROW) for row in value))
        return len(value) if rows else None
    if not named:
        return None
    return _array_length(value) if hasattr(value, "shape") else _sequence_length(value)


def _column_length(columns: Mapping[str, Any]) -> int | None:
    lengths = {length for value in columns.values() if (length := _item_length(value)) is not None}
    if len(lengths) != 1 or _is_row(columns):
        return None
    return lengths.pop()


def _is_row(mapping: Mapping[str, Any]) -> bool:
    """Whether it is one encoded row or one conversation: its lists run over tokens or turns, not over rows."""
    if "input_ids" in mapping:
        ids = mapping["input_ids"]
        return bool(len(ids.shape) < 2) if hasattr(ids, "shape") else not all(_item_length(row) is not None for row in ids)
    return any(isinstance(turn, Mapping) for turn in mapping.get("messages") or ())


def _item_length(value: Any) -> int | None:
    return _array_length(value) if hasattr(value, "shape") else len(value) if isinstance(value, (list, tuple)) else None


def _array_length(value: Any) -> int | None:
    return int(value.shape[0]) if len(value.shape) else None


def _sequence_length(value: Any) -> int | None:
    return len(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else None


def _part(args: Sequence[Any], kwargs: Mapping[str, Any], sliced: Collection[Any], rows: slice) -> Arguments:
    return (
        tuple(_sliced(value, rows) if i in sliced else value for i, value in enumerate(args)),
        {name: _sliced(value, rows) if name in sliced else value for name, value in kwargs.items()},
    )


def _sliced(value: Any, rows: slice) -> Any:
    if isinstance(value, Mapping):
        return {name: column[rows] if _item_length(column) is not None else column for name, column in value.items()}
    return value[rows]


def _joined(results: Sequence[Any]) -> Any:
    first = results[0]
    if isinstance(first, Mapping):
        return {name: _joined([result[name] for result in results]) for name in _same_keys("flatten", results)}
    if all(isinstance(result, (list, tuple)) for result in results):
        return type(first)(chain.from_iterable(results)) if type(first) in (list, tuple) else list(chain.from_iterable(results))
    if all(hasattr(result, "shape") and len(result.shape) for result in results):
        return _concatenate(results)
    if all(result is None for result in results):
        return None
    kinds = ", ".join(sorted({type(result).__name__ for result in results}))
    raise ConfigError(
        f"collect='flatten' joins lists, arrays, or columns of them; it can't join {kinds}. Use 'none', 'mean' or a callable."
    )


def _concatenate(results: Sequence[Any]) -> Any:
    if type(results[0]).__module__.partition(".")[0] == "torch":
        import torch

        return torch.cat(list(results))
    import numpy as np

    return np.concatenate(list(results))


def _sum(mode: str, results: Sequence[Any]) -> Any:
    first = results[0]
    if all(result is None for result in results):
        return None
    if isinstance(first, Mapping):
        return {name: _sum(mode, [result[name] for result in results]) for name in _same_keys(mode, results)}
    if isinstance(first, tuple):
        return tuple(_sum(mode, each) for each in zip(*results, strict=True))
    try:
        return sum(results[1:], start=first + 0)
    except TypeError:
        kinds = ", ".join(sorted({type(result).__name__ for result in results}))
        raise ConfigError(
            f"collect={mode!r} takes numbers, arrays, and mappings or tuples of them; it can't take {kinds}."
        ) from None


def _scaled(value: Any, by: int) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {name: _scaled(each, by) for name, each in value.items()}
    if isinstance(value, tuple):
        return tuple(_scaled(each, by) for each in value)
    return value / by


def _same_keys(mode: str, results: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = list(results[0])
    for i, result in enumerate(results):
        if not isinstance(result, Mapping) or set(result) != set(keys):
            got = ", ".join(map(str, result)) if isinstance(result, Mapping) else type(result).__name__
            raise ConfigError(f"collect={mode!r}: result 0 has the keys {', '.join(map(str, keys))}, but result {i} has {got}.")
    return keys
