"""DataLoader: global batches of a data set, each data-parallel rank its own slice, resumable to the exact row.

Built on ``torch.utils.data.DataLoader``, which is imported when one is made; ``batching`` says which rows come when,
``fetching`` gets them. Knows nothing of models; what a row is, its data set knows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from numbers import Integral
from typing import Any, get_args

from twinkle.data_format import InputFeature
from twinkle.dataloader import BaseDataLoader
from twinkle.device_mesh import DeviceMesh
from twinkle.errors import ConfigError
from twinkle.remote import remote_class, remote_function, workers_of
from twinkle.runtime import Runtime, current_runtime
from twinkle_plugin_data.batching import Plan, RankBatches
from twinkle_plugin_data.fetching import OnError, RowFetcher, SkippedRow

_NOT_OPTIONS = {"self", "dataset", "batch_size", "shuffle", "drop_last", "num_workers", "sampler", "batch_sampler"}
_DEFAULT_SEED = 42  # that of twinkle.initialize


@remote_class(execute="first")
class DataLoader(BaseDataLoader):
    """Batches of rows.

    Args:
        dataset: rows by index, or a function that returns such a data set.
        batch_size: rows in a *global* batch. Each data-parallel rank gets its contiguous slice of it.
        min_batch_size: the fewest rows that the last batch of a pass may have; a shorter rest is left out, and ``len`` doesn't
            count it. At least, and by default, the number of data-parallel ranks, so that no rank goes without and waits for ever.
        device_mesh: how ranks share the rows; by default the mesh that ``twinkle.initialize`` was given.
        remote_group: the name of the device group to run in; where one process does everything, it says nothing.
        shuffle: another order in each pass, given by ``seed`` and the number of the pass.
        seed: by default the seed that ``twinkle.initialize`` was given.
        drop_last: leave a short last batch out altogether.
        num_workers: processes that fetch rows ahead.
        on_error: what to do where a row can't be had: ``raise``, or ``skip`` to take the next that can, and note it in ``skipped``.
        torch_options: further arguments of ``torch.utils.data.DataLoader``, such as ``prefetch_factor``.

    Raises:
        ConfigError: sizes that don't fit each other, or an argument that there isn't.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int = 8,
        min_batch_size: int | None = None,
        device_mesh: DeviceMesh | None = None,
        remote_group: str | None = None,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
        on_error: OnError = "raise",
        **torch_options: Any,
    ) -> None:
        self.dataset = dataset() if callable(dataset) else dataset
        self.batch_size = batch_size
        self.remote_group = remote_group
        self.skipped: list[SkippedRow] = []
        runtime = current_runtime()
        self.device_mesh = device_mesh or runtime.device_mesh
        ranks = self.device_mesh.data_world_size
        _check_sizes(batch_size, min_batch_size, ranks)
        if on_error not in get_args(OnError):
            raise ConfigError(f"on_error has to be 'raise' or 'skip', not {on_error!r}.")
        self._plan = Plan(
            num_rows=len(self.dataset),
            batch_size=batch_size,
            min_batch_size=batch_size if drop_last else max(min_batch_size or 1, ranks),
            shuffle=shuffle,
            seed=_seed(seed, runtime),
        )
        self._batches = RankBatches(self._plan, _span_of(self.device_mesh, runtime))
        self._begun = False
        self._served: Iterator[list[InputFeature]] = iter(())
        self._loader = self._torch_loader(num_workers, on_error, torch_options)

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def __len__(self) -> int:
        """Batches of one whole pass, the same on every rank."""
        return self._plan.num_batches()

    def __iter__(self) -> Iterator[list[InputFeature]]:
        """One pass: the rest of the one that was resumed, else the next, with a new order where rows are shuffled.

        Raises:
            DataError: a row can't be had; names it.
        """
        if workers_of(self) is None:
            yield from self._pass()
            return
        self._begin_pass()
        while (batch := self._next_batch()) is not None:
            yield batch

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def _begin_pass(self) -> None:
        self._served = self._pass()

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def _next_batch(self) -> list[InputFeature] | None:
        """The next batch of the pass that a stand-in began; None at its end."""
        return next(self._served, None)

    def _pass(self) -> Iterator[list[InputFeature]]:
        position = self._batches
        if self._begun:
            position.next_pass()
        for fetched in self._loader:
            self._begun = True
            self.skipped += fetched.skipped
            batch = fetched.result()
            position.hand_out()
            yield batch

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def get_state(self) -> dict[str, Any]:
        """Where the pass stands, after the batches that were handed out; prefetched ones don't count."""
        plan = self._plan
        return {
            "epoch": self._batches.epoch,
            "consumed": self._batches.consumed,
            "num_rows": plan.num_rows,
            "batch_size": plan.batch_size,
            "shuffle": plan.shuffle,
            "seed": plan.seed,
        }

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def resume_from_checkpoint(self, state: Mapping[str, Any] | int) -> None:
        """Make the next iteration go on after ``state``: what ``get_state`` gave, or the number of rows consumed since the start.

        The batch size and the number of ranks may differ from the interrupted run's; the rows go on where they stopped.

        Raises:
            ConfigError: the state belongs to other rows or another order; names what differs.
        """
        if isinstance(state, int):
            if state < 0:
                raise ConfigError(f"The number of rows consumed since the start can't be negative: {state}.")
            self._batches.seek(*divmod(state, self._plan.rows_of_a_pass() or 1))
        else:
            self._check_state(state)
            self._batches.seek(state["epoch"], state["consumed"])
        self._begun = False

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def skip_consumed_samples(self, consumed: int) -> None:
        """Make the next iteration go on after ``consumed`` rows since the start, over all passes."""
        self.resume_from_checkpoint(consumed)

    def _check_state(self, state: Mapping[str, Any]) -> None:
        mine = self.get_state()
        missing = [name for name in mine if name not in state]
        if missing:
            raise ConfigError(f"This is no state of a data loader: it has no {', '.join(missing)}.")
        keys = ["num_rows", "shuffle", "seed"] if self._plan.shuffle or state["shuffle"] else ["num_rows"]
        different = [f"{name} was {state[name]}, and is {mine[name]}" for name in keys if state[name] != mine[name]]
        if different:
            raise ConfigError(
                f"The state can't be resumed here, rows would come twice or never: {'; '.join(different)}. Make the data "
                f"set and the data loader as they were."
            )

    def _torch_loader(self, num_workers: int, on_error: OnError, options: dict[str, Any]) -> Any:
        from torch.utils.data import DataLoader as TorchDataLoader

        known = set(inspect.signature(TorchDataLoader.__init__).parameters) - _NOT_OPTIONS
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigError(
                f"DataLoader takes no {', '.join(map(repr, unknown))}. Beside its own, it takes these arguments of "
                f"torch.utils.data.DataLoader: {', '.join(sorted(known))}."
            )
        fetcher: Any = RowFetcher(self.dataset, on_error, options.pop("collate_fn", None))
        try:
            return TorchDataLoader(fetcher, batch_sampler=self._batches, num_workers=num_workers, collate_fn=_as_it_is, **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"DataLoader can't be made: {error}") from None


def _as_it_is(fetched: Any) -> Any:
    """The collate function for PyTorch: the fetcher has collated already."""
    return fetched


def _check_sizes(batch_size: int, min_batch_size: int | None, ranks: int) -> None:
    if not _is_whole(batch_size) or batch_size < 1:
        raise ConfigError(f"batch_size has to be a whole number of at least 1, not {batch_size!r}.")
    if batch_size % ranks:
        fitting = f"{batch_size - batch_size % ranks or ranks} or {batch_size + -batch_size % ranks}"
        raise ConfigError(
            f"batch_size={batch_size} is the global batch, and can't be shared evenly by {ranks} data-parallel ranks (dp x fsdp of "
            f"the mesh). Take a multiple of {ranks}, such as {fitting}."
        )
    if min_batch_size is not None and not 1 <= min_batch_size <= batch_size:
        raise ConfigError(f"min_batch_size has to be from 1 to batch_size={batch_size}, not {min_batch_size}.")


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _seed(seed: int | None, runtime: Runtime) -> int:
    found = runtime.settings.seed if seed is None else seed
    if found is not None and found < 0:
        raise ConfigError(f"The seed of a data loader can't be negative: {found}.")
    return _DEFAULT_SEED if found is None else found


def _span_of(mesh: DeviceMesh, runtime: Runtime) -> Callable[[int], slice]:
    """This process's part of a global batch: a rank's slice, or all of it where it drives the ranks and deals it out itself.

    Raises:
        MeshError: the mesh doesn't fit the number of ranks.
    """
    if runtime.settings.mode != "local" and runtime.world_size == 1:
        return slice
    mesh.check_world(runtime.world_size)
    return partial(mesh.get_slice, rank=runtime.rank)
