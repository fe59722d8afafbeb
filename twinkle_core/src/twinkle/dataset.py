"""The dataset kind: rows to train on, from a hub, files or memory.

``BaseDataset`` is the contract, ``DatasetMeta`` names where rows come from. Any other name is looked up among the installed
plugins' datasets. Knows nothing of tokens or models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from twinkle.component import component_attributes


@dataclass(frozen=True)
class DatasetMeta:
    """Where rows come from.

    ``dataset_id`` is a hub reference (``ms://swift/self-cognition``), a local file or folder. ``data`` holds rows in memory
    instead: a list of dictionaries, a dictionary of columns, a ``datasets.Dataset`` or a callable that returns one of these.
    ``data_slice`` picks rows by index; past the end it starts again from the first.
    """

    dataset_id: str = ""
    subset_name: str = "default"
    split: str = "train"
    data_slice: Iterable[int] | None = None
    data: Any = None


class BaseDataset(ABC):
    """Rows by index."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any: ...


__getattr__, __dir__ = component_attributes(__name__, ["dataset"], globals())
