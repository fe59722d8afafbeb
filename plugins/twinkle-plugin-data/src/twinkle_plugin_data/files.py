"""Data files to rows, by their suffix: .jsonl .json .csv .tsv .parquet .arrow .txt.

JSON lines stay on disk and are parsed when they are looked at, so that a file larger than memory is no matter and each row has
exactly the fields that its line has; Arrow and Parquet are read through the ``datasets`` library. Knows nothing of hubs and splits.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinkle.errors import DataError
from twinkle_plugin_data.rows import ArrowRows, MemoryRows, Row, Rows


class JsonLinesRows(Rows):
    """The objects of a file with one JSON object a line. Blank lines are no rows."""

    def __init__(self, path: Path, *, name: str) -> None:
        self._path = path
        self._name = name
        self._starts, self._ends, self._lines = _line_spans(path)
        self._file: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self._starts)

    def fetch(self, indices: Sequence[int]) -> list[Row]:
        if not len(indices):
            return []
        content = self._content()
        rows = []
        for index in indices:
            text = content[self._starts[index] : self._ends[index]]
            try:
                row = json.loads(text)
            except ValueError as error:
                raise DataError(f"{self._place(index)} is no valid JSON: {error}. It begins: {text[:60]!r}") from None
            if not isinstance(row, dict):
                raise DataError(f"{self._place(index)} is no JSON object, but {type(row).__name__}: {text[:60]!r}")
            rows.append(row)
        return rows

    def where(self, index: int) -> str:
        return f"row {index} of {self._name!r}"

    def __getstate__(self) -> dict[str, Any]:  # another process opens the file for itself
        return {**self.__dict__, "_file": None}

    def _content(self) -> mmap.mmap:
        if self._file is None:
            with self._path.open("rb") as file:
                self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._file

    def _place(self, index: int) -> str:
        return f"Line {self._lines[index] + 1} of {self._path}"


def read_file(path: Path, *, name: str) -> Rows:
    """The rows of one data file; ``name`` is what errors call it.

    Raises:
        DataError: the suffix is none of ``READERS``, or the content doesn't fit it; names the file.
    """
    try:
        reader = READERS[path.suffix.lower()]
    except KeyError:
        raise DataError(f"{path} is no data file that can be read. Suffixes that can: {', '.join(READERS)}.") from None
    try:
        return reader(path, name)
    except DataError:
        raise
    except (ValueError, OSError, KeyError) as error:  # what JSON and Arrow raise; KeyError: two columns of one name
        raise DataError(f"{path} can't be read as {path.suffix}: {error}") from error


def read_json(path: Path, name: str) -> Rows:
    """A list of objects, columns as an object of lists, rows under ``data`` (or ``rows``, ``examples``), or JSON lines."""
    with path.open("rb") as file:
        first = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if first == b"{":
        lines = JsonLinesRows(path, name=name)
        if len(lines) > 1 and _begins_with_object(lines):
            return lines
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    return rows_from_memory(_inside(content) if isinstance(content, dict) else content, name=name)


def rows_from_memory(data: Any, *, name: str) -> Rows:
    """Rows from a list of dictionaries, a dictionary of columns, or a ``datasets.Dataset``.

    Raises:
        DataError: it is nothing of these, an entry is no dictionary, or columns differ in length.
    """
    if hasattr(data, "column_names") and hasattr(data, "with_format") and hasattr(data, "__len__"):
        return ArrowRows(data.with_format(None), name=name)
    if isinstance(data, dict):
        single = [column for column, values in data.items() if not hasattr(values, "__len__")]
        if single:
            raise DataError(f"Column {single[0]!r} of {name!r} holds {data[single[0]]!r:.60}; it needs one value for each row.")
        lengths = {column: len(values) for column, values in data.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"The columns of {name!r} differ in length: {lengths}.")
        data = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    if not isinstance(data, list | tuple):
        raise DataError(
            f"{name!r} can't be made of {type(data).__name__}. It takes a list of dictionaries, a dictionary of columns or a "
            f"datasets.Dataset."
        )
    for index, row in enumerate(data):
        if not isinstance(row, dict):
            raise DataError(f"Row {index} of {name!r} is no dictionary, but {type(row).__name__}: {row!r:.60}")
    return MemoryRows(list(data), name=name)


def _read_csv(path: Path, name: str) -> Rows:
    import pyarrow.csv

    parse = pyarrow.csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True)
    table = pyarrow.csv.read_csv(path, parse_options=parse, read_options=pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK))
    for field in table.schema:
        if pyarrow.types.is_binary(field.type):  # what Arrow makes of text that it can't decode
            raise DataError(f"{path} can't be read as {path.suffix}: column {field.name!r} isn't UTF-8. Convert the file.")
    return _from_table(table, name)


def _read_parquet(path: Path, name: str) -> Rows:
    import pyarrow.parquet

    return _from_table(pyarrow.parquet.read_table(path, memory_map=True), name)


def _read_arrow(path: Path, name: str) -> Rows:
    import datasets
    import pyarrow

    with path.open("rb") as file:
        streamed = file.read(len(_ARROW_FILE)) != _ARROW_FILE
    if streamed:
        return ArrowRows(datasets.Dataset.from_file(str(path)), name=name)
    return _from_table(pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all(), name)


def _read_text(path: Path, name: str) -> Rows:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return MemoryRows([{"text": line} for line in lines], name=name)


def _from_table(table: Any, name: str) -> Rows:
    import datasets

    return ArrowRows(datasets.Dataset(table), name=name)


_ENVELOPES = ("data", "rows", "examples")
_NEWLINE = ord("\n")
_WHITE_SPACE = np.frombuffer(b" \t\r\n", np.uint8)
_ARROW_FILE = b"ARROW1"  # the file format begins so, which has an index at its end; the stream, that `datasets` writes, doesn't
_CSV_BLOCK = 1 << 26  # bytes read in one go: a row can't be longer
_SCAN_BLOCK = 1 << 26  # bytes looked at in one go for line ends: bounds the memory that a large file takes

READERS: dict[str, Callable[[Path, str], Rows]] = {
    ".jsonl": lambda path, name: JsonLinesRows(path, name=name),
    ".json": read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".txt": _read_text,
}
"""From the suffix of a data file to what reads it."""


def _line_spans(path: Path) -> tuple[Any, Any, Any]:
    """Byte offsets where each line with content starts and ends, and its number from 0."""
    if not path.stat().st_size:
        nothing = np.empty(0, np.int64)
        return nothing, nothing, nothing
    content = np.memmap(path, np.uint8, "r")
    blocks = range(0, len(content), _SCAN_BLOCK)
    ends = np.concatenate([np.flatnonzero(content[start : start + _SCAN_BLOCK] == _NEWLINE) + start for start in blocks])
    if not len(ends) or ends[-1] != len(content) - 1:
        ends = np.append(ends, len(content))
    starts = np.concatenate([[0], ends[:-1] + 1])
    if content[:3].tobytes() == b"\xef\xbb\xbf":
        starts[0] = 3
    # Only a line that begins with white space, or with its own end, can be blank.
    doubtful = np.flatnonzero(np.isin(content[np.minimum(starts, len(content) - 1)], _WHITE_SPACE))
    blank = [line for line in doubtful.tolist() if not content[starts[line] : ends[line]].tobytes().strip()]
    lines = np.delete(np.arange(len(starts)), blank)
    return starts[lines], ends[lines], lines


def _begins_with_object(lines: JsonLinesRows) -> bool:
    try:
        lines.fetch([0])
    except DataError:
        return False
    return True


def _inside(content: dict[str, Any]) -> Any:
    """The rows in an object that is no list of them: under a usual name, as columns, or the object as the only row."""
    for name in _ENVELOPES:
        if isinstance(content.get(name), list):
            return content[name]
    columns = "messages" not in content and all(isinstance(value, list) for value in content.values())
    return content if columns else [content]
