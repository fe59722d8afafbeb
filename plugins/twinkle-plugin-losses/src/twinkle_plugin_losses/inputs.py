"""What losses check of their inputs, with errors that name the loss, the offender and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def refuse_unknown(loss: object, kwargs: Mapping[str, Any], known: tuple[str, ...] = ()) -> None:
    """Raise ``ValueError`` where ``kwargs`` holds anything that isn't ``known``: a keyword that does nothing is a mistake."""
    unknown = ", ".join(repr(name) for name in sorted(set(kwargs) - set(known)))
    if unknown:
        takes = ", ".join(known) or "none"
        raise ValueError(f"{type(loss).__name__} doesn't know {unknown}, given with the inputs. Keywords that it takes: {takes}.")


def require(loss: object, mapping: Mapping[str, Any], key: str, where: str, *, instead_of: str | None = None) -> Tensor:
    """The tensor ``mapping[key]``.

    Raises:
        ValueError: it is missing; ``where`` says of what, ``instead_of`` what would have been better.
    """
    found: Tensor | None = mapping.get(key)
    if found is None:
        wanted = f"{instead_of!r} (or {key!r})" if instead_of else repr(key)
        there = ", ".join(sorted(name for name, value in mapping.items() if value is not None)) or "nothing"
        raise ValueError(f"{type(loss).__name__} needs {wanted} in its {where}, which hold: {there}.")
    return found


def check_shape(loss: object, name: str, tensor: Tensor, labels: Tensor) -> None:
    """Raise ``ValueError`` where ``tensor`` doesn't align with the labels."""
    if tensor.shape != labels.shape:
        shapes = f"{name} has the shape {list(tensor.shape)}, labels have {list(labels.shape)}"
        raise ValueError(f"{type(loss).__name__}: {shapes}; they have to align.")
