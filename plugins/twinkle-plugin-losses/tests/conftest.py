"""Batches for the tests of losses."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Example = tuple[Tensor, Tensor]


@pytest.fixture
def example() -> Callable[..., Example]:
    """``example(seed=0, dtype=…)``: logits ``[2, 6, 11]`` that require a gradient, and labels of which some are -100."""

    def make(seed: int = 0, dtype: torch.dtype = torch.float32) -> Example:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(2, 6, 11, generator=generator, dtype=torch.float64).mul(3).to(dtype).requires_grad_()
        labels = torch.randint(0, 11, (2, 6), generator=generator)
        labels[0, :2] = -100
        labels[1, 4:] = -100
        return logits, labels

    return make


@pytest.fixture(params=["logits", "logps"])
def outputs_of(request: pytest.FixtureRequest) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """Model outputs from logits and labels, in each of the two forms that a model may give."""

    def logps_outputs(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logps = logits.log_softmax(-1)
        mask = labels != -100
        chosen = logps.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return {"logps": torch.where(mask, chosen, 0.0), "mean_logps": torch.where(mask, logps.mean(-1), 0.0)}

    return logps_outputs if request.param == "logps" else lambda logits, labels: {"logits": logits}
