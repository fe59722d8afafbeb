"""Rows to files and to other column types, through the ``datasets`` library and Arrow.

A file is written beside its place and renamed, so that what was there before stays until all of it is replaced.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from twinkle.errors import DataError
from twinkle_plugin_data.rows import ArrowRows, Row, Rows

_CHUNK = 1024
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def save_rows(rows: Rows, path: Path) -> Path:
    """Write ``rows`` to ``path`` in the format that its suffix names; returns ``path``.

    Raises:
        DataError: the suffix names no format, or the rows don't fit it.
    """
    if path.suffix and path.suffix not in _SUFFIXES:
        raise DataError(
            f"Rows can't be saved as {path.suffix}. Suffixes that can: {', '.join(_SUFFIXES)}; none for a folder of Arrow files."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        written = Path(folder) / f"rows{path.suffix}"
        if path.suffix in (".jsonl", ".json"):
            _write_json(rows, written)
        else:
            _write_arrow(rows, written, path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        written.replace(path)
    return path


def with_column_cast(rows: Rows, column: str, feature: Any) -> Rows:
    """``rows`` with a column of another type, in Arrow.

    Raises:
        DataError: there is no such column, or a value doesn't fit the type.
    """
    import datasets

    table = rows.dataset if isinstance(rows, ArrowRows) else _as_arrow(rows, "cast")
    name = rows.where(0).partition(" of ")[2].strip("'") if len(rows) else "data"
    if column not in table.column_names:
        raise DataError(f"{name!r} has no column {column!r}. Its columns: {', '.join(table.column_names)}.")
    try:
        return ArrowRows(table.cast_column(column, datasets.Value(feature) if isinstance(feature, str) else feature), name=name)
    except (ValueError, TypeError) as error:  # Arrow's errors are ValueErrors
        raise DataError(f"Column {column!r} of {name!r} can't be cast to {feature}: {error}") from error


def _write_json(rows: Rows, path: Path) -> None:
    as_list = path.suffix == ".json"
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n" if as_list else ""
        for row in _plain_rows(rows):
            try:
                text = json.dumps(row, ensure_ascii=False)
            except TypeError as error:
                raise DataError(f"These rows can't be saved as {path.suffix}: {error}. Save as .parquet.") from error
            file.write(separator + text)
            separator = ",\n" if as_list else "\n"
        file.write(("\n]\n" if len(rows) else "[]\n") if as_list else "\n" * bool(len(rows)))


def _write_arrow(rows: Rows, path: Path, shown: Path) -> None:
    table = _as_arrow(rows, f"save as {shown.suffix or 'a folder of Arrow files'}")
    if path.suffix == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(table.data.table, path)
    elif path.suffix == ".csv":
        import pyarrow.csv

        try:
            pyarrow.csv.write_csv(table.data.table, path)
        except ValueError as error:
            raise DataError(f"These rows can't be saved as .csv, which has no nested values: {error}. Save as .jsonl.") from error
    else:
        table.save_to_disk(str(path))


def _as_arrow(rows: Rows, action: str) -> Any:
    import datasets
    import pyarrow as pa

    if isinstance(rows, ArrowRows):
        return rows.dataset
    plain = list(_plain_rows(rows))
    names = dict.fromkeys(name for row in plain for name in row)
    try:
        return datasets.Dataset(pa.table({name: pa.array([row.get(name) for row in plain]) for name in names}))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"To {action}, every column needs one type, and one has several: {error}. Save as .jsonl, which needs none."
        ) from error


def _plain_rows(rows: Rows) -> Iterator[Row]:
    for start in range(0, len(rows), _CHUNK):
        for row in rows.fetch(range(start, min(start + _CHUNK, len(rows)))):
            yield {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
