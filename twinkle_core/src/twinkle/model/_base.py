"""The contract of a model backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinkle.data_format import InputFeature, ModelOutput
from twinkle.metric import Measurements

if TYPE_CHECKING:
    from torch import Tensor

    from twinkle_hub.uploads import UploadHandle

ModelInputs = Sequence[InputFeature] | Mapping[str, Any]


class TwinkleModel(ABC):
    """A base model with any number of adapters, each with its own optimizer, schedule, loss, metrics and accumulation.

    ``adapter_name=""`` means the only adapter, or the full parameters where no adapter was added; where there are several it is an
    error. A step is ``gradient_accumulation_steps`` calls of ``forward_backward``; ``clip_grad_and_step`` acts on the last of them
    and does nothing before it. The gradient is that of the mean over all tokens of the step, over micro-batches and ranks.
    """

    @abstractmethod
    def add_adapter_to_model(
        self, adapter_name: str, config_or_dir: Any, *, gradient_accumulation_steps: int = 1, **kwargs: Any
    ) -> None:
        """Add a trainable adapter: a PEFT configuration, or a folder or hub reference that holds a saved one.

        Raises:
            AdapterError: there is one of that name; nothing was changed.
        """

    @abstractmethod
    def forward(self, *, inputs: ModelInputs, adapter_name: str = "", **kwargs: Any) -> ModelOutput:
        """A forward pass that ``calculate_loss`` and ``backward`` can follow."""

    @abstractmethod
    def forward_only(
        self, *, inputs: ModelInputs, adapter_name: str = "", disable_lora: bool = False, **kwargs: Any
    ) -> ModelOutput:
        """A forward pass without gradients, by default giving ``logps``."""

    @abstractmethod
    def calculate_loss(self, *, adapter_name: str = "", **kwargs: Any) -> float:
        """The loss of the last ``forward``: the mean over its own tokens."""

    @abstractmethod
    def backward(self, *, adapter_name: str = "") -> None:
        """Accumulate the gradients of the last ``calculate_loss``."""

    @abstractmethod
    def forward_backward(self, *, inputs: ModelInputs, adapter_name: str = "", **kwargs: Any) -> ModelOutput:
        """Forward, loss and backward. ``kwargs`` go to the loss, sliced by micro-batch where they have one entry a row."""

    @abstractmethod
    def clip_grad_norm(self, max_grad_norm: float = 1.0, *, adapter_name: str = "") -> float:
        """Normalise and clip the accumulated gradients; returns their norm before clipping."""

    @abstractmethod
    def step(self, *, adapter_name: str = "") -> None:
        """An optimizer step."""

    @abstractmethod
    def zero_grad(self, *, adapter_name: str = "") -> None:
        """Forget the accumulated gradients."""

    @abstractmethod
    def lr_step(self, *, adapter_name: str = "") -> None:
        """A step of the learning-rate schedule."""

    @abstractmethod
    def clip_grad_and_step(
        self, max_grad_norm: float = 1.0, *, gradient_accumulation_steps: int | None = None, adapter_name: str = ""
    ) -> float | None:
        """Clip, step, zero and advance the schedule where a step is due; returns the gradient norm then, else None."""

    @abstractmethod
    def set_loss(self, loss: object, *, adapter_name: str = "", **config: Any) -> None:
        """Choose the loss: an instance, class, function or reference."""

    @abstractmethod
    def set_optimizer(self, optimizer_cls: object, *, adapter_name: str = "", **config: Any) -> None:
        """Choose the optimizer: a name in ``torch.optim``, a class or a reference."""

    @abstractmethod
    def set_lr_scheduler(self, scheduler_cls: object, *, adapter_name: str = "", **config: Any) -> None:
        """Choose the learning-rate schedule: a name, a class or a reference."""

    @abstractmethod
    def set_template(self, template_cls: object, *, adapter_name: str = "", **config: Any) -> None:
        """Choose the template with which trajectories given as inputs are encoded."""

    @abstractmethod
    def set_processor(self, processor_cls: object, *, adapter_name: str = "", **config: Any) -> None:
        """Choose how rows are collated."""

    @abstractmethod
    def add_metric(self, metric_cls: object, *, is_training: bool | None = None, adapter_name: str = "", **config: Any) -> None:
        """Add a metric, for training, for evaluation, or (None) for both."""

    @abstractmethod
    def calculate_metric(self, *, is_training: bool, adapter_name: str = "") -> Measurements:
        """The metrics since the last call, over all ranks."""

    @abstractmethod
    def apply_patch(self, patch: object, **config: Any) -> None:
        """Apply a patch to the underlying model."""

    @abstractmethod
    def save(self, name: str, *, output_dir: str | Path | None = None, adapter_name: str = "", **kwargs: Any) -> Path:
        """Write a checkpoint, whole or not at all; returns its folder."""

    @abstractmethod
    def load(self, name: str, *, output_dir: str | Path | None = None, adapter_name: str = "", **kwargs: Any) -> None:
        """Read weights (and, where asked, optimizer state) from a checkpoint."""

    @abstractmethod
    def resume_from_checkpoint(self, checkpoint: str | Path, *, adapter_name: str = "") -> dict[str, Any]:
        """Continue exactly where a checkpoint stood: weights, optimizer, schedule, random state; returns the data position."""

    @abstractmethod
    def get_state_dict(self, *, adapter_name: str = "") -> dict[str, Tensor]:
        """The trainable weights by name."""

    @abstractmethod
    def get_train_configs(self, *, adapter_name: str = "") -> str:
        """What this run is configured with, for people."""

    @abstractmethod
    def upload_to_hub(self, checkpoint_dir: str | Path, hub_model_id: str, **kwargs: Any) -> str | UploadHandle:
        """Publish a checkpoint; returns where, or a handle where it goes on in the background."""
