"""Which sequence each token of a batch belongs to.

Rows are sequences; in a packed row a new one begins wherever ``position_ids`` is 0. Knows nothing of losses.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_index(like: Tensor, position_ids: Tensor | None) -> Tensor:
    """The number of each token's sequence, ``[B, T]`` int64 as ``like`` is, rising from 0 in reading order, always below ``B·T``.

    Padding whose position is 0 makes sequences of its own; they hold no label.

    Raises:
        ValueError: ``position_ids`` has another shape.
    """
    if position_ids is None:
        starts = torch.zeros_like(like, dtype=torch.bool)
    elif position_ids.shape == like.shape:
        starts = position_ids == 0
    else:
        raise ValueError(
            f"position_ids has the shape {list(position_ids.shape)}, but labels have {list(like.shape)}: where sequences begin can "
            f"only be read from position_ids [B, T]."
        )
    starts[:, :1] = True
    return starts.flatten().cumsum(0).sub(1).view(starts.shape)
