"""Dataset: rows from a hub, files or memory, turned into what a model trains on.

``map`` and ``filter`` work on raw rows, ``encode`` makes features of them; each step is run over all rows at once, and one that
fails leaves the data set as it was. Leans on ``rows`` for where rows are and on ``steps`` for what is done to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, overload

from twinkle.component import make_component
from twinkle.dataset import BaseDataset, DatasetMeta
from twinkle.device_mesh import DeviceMesh
from twinkle.errors import ConfigError
from twinkle.preprocessor import Filter, Preprocessor
from twinkle.remote import remote_class, remote_function
from twinkle.template import BaseTemplate
from twinkle_plugin_data.mixing import StoppingStrategy, mixed
from twinkle_plugin_data.rows import Row, Rows, concatenated, copied
from twinkle_plugin_data.running import encode, run
from twinkle_plugin_data.saving import save_rows, with_column_cast
from twinkle_plugin_data.sources import name_of_source, open_rows
from twinkle_plugin_data.steps import CheckStep, EncodeStep, FilterStep, MapStep, Step


class _Part:
    """The rows that came of one ``DatasetMeta``; None after mixing."""

    def __init__(self, meta: DatasetMeta | None, rows: Rows) -> None:
        self.meta = meta
        self.rows = rows


@remote_class(execute="first")
class Dataset(BaseDataset):
    """Rows to train on.

    ``dataset_meta`` says where they come from (a hub reference, file or folder by itself will do); ``options``, such as
    ``revision``, go to the hub. Without it the data set is empty until ``add_dataset``.

    Rows are handed out as dictionaries of the caller's own. Token fields of encoded rows are numpy arrays: int32, weights
    float32.

    With ``remote_group`` the rows live in one worker of that group, and this is their stand-in: functions, preprocessors and
    templates are made here and go to the rows. ``device_mesh`` says nothing: a data loader shares rows out, a data set has all.
    """

    _template: BaseTemplate | None = None

    _rows_ahead = 256
    """How many rows iterating fetches at a time."""

    def __init__(
        self, dataset_meta: DatasetMeta | str | Path | None = None, *, device_mesh: DeviceMesh | None = None, **options: Any
    ) -> None:
        self._parts: list[_Part] = []
        if dataset_meta is not None:
            self.add_dataset(dataset_meta, **options)
        elif options:
            raise ConfigError(f"Dataset was given {', '.join(options)}, but no dataset_meta to use it for.")

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def __len__(self) -> int:
        return sum(len(part.rows) for part in self._parts)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """One row, or the rows of a slice."""
        length = len(self)
        if isinstance(index, slice):
            return self.__getitems__(range(length)[index])
        if not -length <= index < length:
            raise IndexError(f"Row {index} of a data set of {length} rows.")
        return self.__getitems__([int(index) % length])[0]

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        """Many rows at once, each fetched once (PyTorch's data loader asks for a batch this way)."""
        return [copied(row) for row in self._rows().fetch(indices)]

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), self._rows_ahead):
            yield from self.__getitems__(range(start, min(start + self._rows_ahead, len(self))))

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def where(self, index: int) -> str:
        """Where the row at ``index`` came from, as errors say it: ``row 17 of 'ms://swift/self-cognition'``."""
        return self._rows().where(index)

    def set_template(self, template_ref: object, **config: Any) -> Self:
        """Choose the template that ``encode`` and ``check`` use: an instance, or a class, name or reference with its ``config``."""
        self._template = make_component("template", template_ref, **config)
        return self

    def add_dataset(self, dataset_meta: DatasetMeta | str | Path, **options: Any) -> Self:
        """Add the rows of another source, after those that are there.

        Raises:
            DataError: the source can't be read, or has no such subset or split.
        """
        meta = dataset_meta if isinstance(dataset_meta, DatasetMeta) else DatasetMeta(str(dataset_meta))
        self._open(meta, options)
        return self

    def map(
        self,
        preprocess_func: object,
        *,
        dataset_meta: DatasetMeta | str | None = None,
        batched: bool | None = None,
        **config: Any,
    ) -> Self:
        """Replace each row by what ``preprocess_func`` makes of it; None drops the row.

        Args:
            preprocess_func: a ``Preprocessor``, or a class, name or reference of one, built with ``config``; or a function from
                a row to a trajectory.
            dataset_meta: map the rows of this source alone, where several were added.
            batched: whether a function takes a list of rows and returns as many results. Preprocessors always do.

        Raises:
            DataError: it fails on a row, or returns something else; names the row and its fields. The data set is as before.
        """
        function = make_component("preprocessor", preprocess_func, **config)
        takes_lists = isinstance(function, Preprocessor) if batched is None else batched or isinstance(function, Preprocessor)
        self._apply(MapStep(function, batched=takes_lists), dataset_meta)
        return self

    def filter(self, filter_func: object, *, dataset_meta: DatasetMeta | str | None = None, **config: Any) -> Self:
        """Keep the rows for which ``filter_func`` is true: a ``Filter``, a class, name or reference of one, or a function of a row.

        Raises:
            DataError: it fails on a row; names the row and its fields. The data set is as before.
        """
        function: Filter | Callable[[Row], Any] = make_component("filter", filter_func, **config)
        self._apply(FilterStep(function), dataset_meta)
        return self

    def encode(self, add_generation_prompt: bool = False, num_proc: int | None = None) -> Self:
        """Turn trajectories into features with the template. Columns beside ``messages`` and ``tools`` are carried along.

        Args:
            add_generation_prompt: end each row with the opening of an assistant's turn, to sample from.
            num_proc: how many processes encode. Data sets too small to be worth starting them are encoded in this process.

        Raises:
            ConfigError: no template was set.
            DataError: a row can't be encoded, or is too long under ``truncation_strategy='raise'``; names it and its data set.
        """
        if num_proc is not None and num_proc < 1:
            raise ConfigError(f"num_proc has to be at least 1, not {num_proc}.")
        step = EncodeStep(self._need_template("encode"), add_generation_prompt=add_generation_prompt)
        self._apply(step, None, num_proc or 1)
        return self

    def check(self) -> Self:
        """Drop the rows that the template can't encode.

        Raises:
            ConfigError: no template was set.
        """
        self._apply(CheckStep(self._need_template("check")), None)
        return self

    def mix_dataset(
        self,
        interleave: bool = True,
        *,
        probabilities: Sequence[float] | None = None,
        seed: int = 42,
        stopping_strategy: StoppingStrategy = "all_exhausted_without_replacement",
    ) -> Self:
        """Make one data set of those that were added.

        ``interleave`` takes a row from each in turn, or by ``probabilities``, drawn with ``seed``; else they stand one after the
        other. By default every row comes exactly once; ``first_exhausted`` stops when one source has no more rows,
        ``all_exhausted`` starts short sources again until every one is through (the words are the ``datasets`` library's).

        Raises:
            ConfigError: the probabilities don't fit the sources.
        """
        self._mix(interleave, probabilities, seed, stopping_strategy)
        return self

    def cast_column(self, column: str, feature: Any) -> Self:
        """Cast a column to a ``datasets`` feature, or to the type of that name (``int64``, ``string``, …).

        Raises:
            DataError: there is no such column, or a value doesn't fit the type.
        """
        self._cast(column, feature)
        return self

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def save_as(self, path: str | Path) -> Path:
        """Write all rows to ``path``: .jsonl, .json, .csv or .parquet by its suffix; without one a folder for ``load_from_disk``.

        What was at ``path`` is replaced once everything is written.

        Raises:
            DataError: rows don't fit the format; names a format that they fit.
        """
        return save_rows(self._rows(), Path(path))

    # What follows runs where the rows are. It returns no data set: that would be sent to whoever holds the stand-in.

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def _open(self, meta: DatasetMeta, options: dict[str, Any]) -> None:
        self._parts.append(_Part(meta, open_rows(meta, **options)))

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def _apply(self, step: Step, dataset_meta: DatasetMeta | str | None, processes: int = 1) -> None:
        parts = self._parts if dataset_meta is None else [self._part_of(dataset_meta)]
        for part, rows in [(part, self._applied(step, part.rows, processes)) for part in parts]:
            part.rows = rows

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def _mix(self, interleave: bool, probabilities: Sequence[float] | None, seed: int, stopping_strategy: StoppingStrategy) -> None:
        parts = [part.rows for part in self._parts]
        rows = mixed(parts, probabilities, seed, stopping_strategy) if interleave else concatenated(parts)
        self._parts = [_Part(None, rows)]

    @remote_function(execute="first", collect="first", sync=True, lazy_collect=False)
    def _cast(self, column: str, feature: Any) -> None:
        for part, rows in [(part, with_column_cast(part.rows, column, feature)) for part in self._parts]:
            part.rows = rows

    def _applied(self, step: Step, rows: Rows, processes: int) -> Rows:
        """``rows`` after ``step``; a lazy data set only notes it."""
        return encode(step, rows, processes) if isinstance(step, EncodeStep) else run(step, rows)

    def _rows(self) -> Rows:
        return concatenated([part.rows for part in self._parts])

    def _part_of(self, meta: DatasetMeta | str) -> _Part:
        for part in self._parts:
            if part.meta is meta:
                return part
        wanted = (meta, "default", "train") if isinstance(meta, str) else (meta.dataset_id, meta.subset_name, meta.split)
        for part in self._parts:
            if part.meta and part.meta.dataset_id and (part.meta.dataset_id, part.meta.subset_name, part.meta.split) == wanted:
                return part
        there = [name_of_source(part.meta) for part in self._parts if part.meta] or ["one mixed data set"]
        raise ConfigError(f"This data set holds nothing from {wanted[0] or 'that data'!r}. It holds: {', '.join(there)}.")

    def _need_template(self, action: Literal["encode", "check"]) -> BaseTemplate:
        if self._template is None:
            raise ConfigError(f"{action} needs a template. Call dataset.set_template('Template', model_id=…) first.")
        return self._template
