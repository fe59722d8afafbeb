"""A result that stays where it is until somebody looks.

``LazyCollect`` stands for the collected value of a remote call: look at it in any way, and it is fetched, once. Knows nothing
of where it comes from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class LazyCollect(Generic[T]):
    """Stands for the value that ``fetch()`` returns.

    Calling it gives the value. Iterating, ``len()``, indexing, ``in``, truth, comparing, arithmetic, ``float()``, ``int()``,
    ``os.fspath()``, formatting and public attributes act on the value, and give what it would. Pickling and copying give the
    value itself. ``repr()`` doesn't fetch. Where ``fetch`` raises, so does looking, and the next look tries again.
    """

    def __init__(self, fetch: Callable[[], T]) -> None:
        self._fetch: Callable[[], T] | None = fetch
        self._value: T | None = None
        self._lock = Lock()

    def __call__(self) -> T:
        with self._lock:
            if self._fetch is not None:
                self._value = self._fetch()
                self._fetch = None
        return self._value  # type: ignore[return-value]  # None only where T allows None

    @property
    def is_fetched(self) -> bool:
        """Whether somebody has looked."""
        return self._fetch is None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._any())

    def __len__(self) -> int:
        return len(self._any())

    def __getitem__(self, key: Any) -> Any:
        return self._any()[key]

    def __contains__(self, item: object) -> bool:
        return item in self._any()

    def __bool__(self) -> bool:
        return bool(self())

    def __eq__(self, other: object) -> bool:
        return bool(self() == value_of(other))

    def __hash__(self) -> int:
        return hash(self())

    def __lt__(self, other: Any) -> Any:
        return self._any() < value_of(other)

    def __le__(self, other: Any) -> Any:
        return self._any() <= value_of(other)

    def __gt__(self, other: Any) -> Any:
        return self._any() > value_of(other)

    def __ge__(self, other: Any) -> Any:
        return self._any() >= value_of(other)

    def __add__(self, other: Any) -> Any:
        return self._any() + value_of(other)

    def __radd__(self, other: Any) -> Any:
        return other + self._any()

    def __sub__(self, other: Any) -> Any:
        return self._any() - value_of(other)

    def __rsub__(self, other: Any) -> Any:
        return other - self._any()

    def __mul__(self, other: Any) -> Any:
        return self._any() * value_of(other)

    def __rmul__(self, other: Any) -> Any:
        return other * self._any()

    def __truediv__(self, other: Any) -> Any:
        return self._any() / value_of(other)

    def __rtruediv__(self, other: Any) -> Any:
        return other / self._any()

    def __neg__(self) -> Any:
        return -self._any()

    def __round__(self, digits: int | None = None) -> Any:
        return round(self._any(), digits)

    def __fspath__(self) -> str:
        return os.fspath(self._any())

    def __float__(self) -> float:
        return float(self._any())

    def __int__(self) -> int:
        return int(self._any())

    def __str__(self) -> str:
        return str(self())

    def __format__(self, spec: str) -> str:
        return format(self(), spec)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # protocols that are not ours to answer for, and our own fields while unpickling
            raise AttributeError(f"LazyCollect has no attribute {name!r}")
        return getattr(self(), name)

    def __repr__(self) -> str:
        return f"LazyCollect({self._value!r})" if self.is_fetched else "LazyCollect(not fetched yet)"

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[T]]:
        return value_of, (self(),)

    def _any(self) -> Any:
        return self()


def value_of(value: Any) -> Any:
    """``value`` itself, or what it stands for where it is a ``LazyCollect``."""
    return value() if isinstance(value, LazyCollect) else value
