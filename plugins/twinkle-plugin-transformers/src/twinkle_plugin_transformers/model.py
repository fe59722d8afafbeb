"""``TransformersModel``: a causal language model of Transformers with adapters of PEFT, or trained in full.

The façade: finds the adapter that a call is about and hands over to the module whose business it is (forward pass, head, gradients,
checkpoints, generation). Holds the base model and one object for each adapter, and no other training state.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from twinkle.component import load_component, make_component
from twinkle.data_format import InputFeature, ModelOutput, SampleResponse, SamplingParams, Trajectory
from twinkle.errors import ConfigError
from twinkle.hub import download_model
from twinkle.metric import Measurements
from twinkle.model import TwinkleModel
from twinkle.patch import apply_patch
from twinkle.remote import remote_class, remote_function
from twinkle_plugin_transformers import steps
from twinkle_plugin_transformers.adapter import AdapterState, check_positive
from twinkle_plugin_transformers.base_model import load_base_model, resolve_model_class
from twinkle_plugin_transformers.checkpoint import Checkpoints
from twinkle_plugin_transformers.checkpoint_folder import checkpoint_path
from twinkle_plugin_transformers.data_parallel import DataParallel
from twinkle_plugin_transformers.description import describe
from twinkle_plugin_transformers.generation import generate
from twinkle_plugin_transformers.injection import AdapterSet
from twinkle_plugin_transformers.optimizers import build_optimizer, build_scheduler
from twinkle_plugin_transformers.outputs import detached
from twinkle_plugin_transformers.passes import Passes, collect_outputs
from twinkle_plugin_transformers.precision import Precision
from twinkle_plugin_transformers.publishing import Publishing
from twinkle_plugin_transformers.states import AdapterStates

if TYPE_CHECKING:
    from twinkle.device_mesh import DeviceMesh
    from twinkle_hub.uploads import UploadHandle

_SEED = 42


@remote_class()
class TransformersModel(TwinkleModel):
    """A causal language model on Transformers and PEFT.

    Under data parallelism every rank makes the same calls, each with its own rows, or with none at the end of the data. A step, a
    metric and a checkpoint wait for all ranks: an error that is caught on one of them has to be dealt with on all, or the others
    wait until the process group gives up.

    Args:
        model_cls: a Transformers class, or its name.
        model_id: a folder or hub reference; ``None`` for random weights from ``config``.
        config: a Transformers configuration, or a folder or reference that holds one. With ``model_id`` it overrides the saved one.
        device_mesh: how the model is spread. This backend does data parallelism; every other dimension has to be 1.
        mixed_precision: ``"bf16"`` (default), ``"fp16"`` or ``"no"``; on CPU all of them mean float32 (see ``precision``).
        strategy: ``"accelerate"``, the name under which existing scripts know plain data parallelism.
        ddp_config: ``{"bucket_cap_mb": …}`` for the gradient reduction. Other options of DistributedDataParallel concern its hooks,
            which this backend doesn't have (see ``gradients``), and are errors.
        grad_scaler_config: options of the float16 loss scale.
        memory_efficient_init: kept for existing scripts. Weights are memory-mapped and read once, in their final format, anyway.
        dtype: the format of weights, instead of the one that ``mixed_precision`` implies.
        gradient_checkpointing: recompute activations in the backward pass: about 1.4 times the time, far less memory. Off unless
            asked for.
        kwargs: options of ``from_pretrained`` or ``from_config`` (``attn_implementation``, ``trust_remote_code``, …).

    Raises:
        ConfigError: the model can't be loaded, or an option isn't known here.
    """

    def __init__(
        self,
        model_cls: Any = "AutoModelForCausalLM",
        model_id: str | Path | None = None,
        config: Any = None,
        device_mesh: DeviceMesh | None = None,
        mixed_precision: str = "bf16",
        strategy: str = "accelerate",
        ddp_config: Mapping[str, Any] | None = None,
        fsdp_config: Mapping[str, Any] | None = None,
        grad_scaler_config: Mapping[str, Any] | None = None,
        memory_efficient_init: bool = False,
        *,
        dtype: torch.dtype | None = None,
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        self._parallel = DataParallel.of(device_mesh, strategy=strategy, ddp_config=ddp_config, fsdp_config=fsdp_config)
        self._device = torch.device(self._parallel.runtime.device)
        self._precision = Precision.choose(mixed_precision, self._device.type, dtype)
        self._precision.loss_scale(grad_scaler_config)  # refuses what it doesn't know
        seed = self._parallel.runtime.seeds.seed
        self._seed = _SEED if seed is None else seed
        self.model_id = None if model_id is None else str(model_id)
        self._folder = None if model_id is None else download_model(str(model_id))
        self._base = load_base_model(
            resolve_model_class(model_cls),
            self._folder,
            config,
            precision=self._precision,
            device=self._device,
            seed=self._seed,
            options=kwargs,
            reference=self.model_id,
        )
        if gradient_checkpointing:
            self._base.gradient_checkpointing_enable({"use_reentrant": False})
        self._adapters = AdapterSet(self._base, seed=self._seed)
        self._passes = Passes(self._base, self._adapters, self._precision, self._parallel)
        self._checkpoints = Checkpoints(
            self._base, self._adapters, parallel=self._parallel, device=self._device, source=self._folder, model_id=self.model_id
        )
        self._states = AdapterStates(
            self._base,
            self._adapters,
            device=self._device,
            gather=self._parallel.gather,
            loss_scale=lambda: self._precision.loss_scale(grad_scaler_config),
        )

    @property
    def model(self) -> nn.Module:
        """The Transformers model, with PEFT's layers in it where there are adapters."""
        found: nn.Module = self._base
        return found

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._device

    # Adapters -----------------------------------------------------------------------------------------------------------------

    @remote_function(collect="first")
    def add_adapter_to_model(
        self, /, adapter_name: str, config_or_dir: Any, *, gradient_accumulation_steps: int = 1, **kwargs: Any
    ) -> None:
        """Add an adapter: a PEFT configuration, or a folder or hub reference that holds a saved adapter, whose weights it gets.

        New weights depend on the seed and the adapter's name only, so every rank has the same.

        Raises:
            AdapterError: there is one of that name, or the full parameters are being trained; nothing was changed.
            ConfigError: the configuration doesn't fit the model; nothing was changed.
        """
        _refuse("add_adapter_to_model", kwargs)
        self._states.add(adapter_name, config_or_dir, gradient_accumulation_steps=gradient_accumulation_steps)

    # Forward and backward -----------------------------------------------------------------------------------------------------

    @remote_function(dispatch="slice_dp", collect=collect_outputs)
    def forward(self, /, *, inputs: Any, adapter_name: str = "", temperature: float = 1.0, **kwargs: Any) -> ModelOutput:
        """A forward pass in training mode that ``calculate_loss`` and ``backward`` can follow. ``kwargs`` are kept for the loss."""
        return self._passes.train(self._states.find(adapter_name), inputs, temperature, kwargs).outputs

    @remote_function(dispatch="slice_dp", collect=collect_outputs)
    def forward_only(
        self,
        /,
        *,
        inputs: Any,
        adapter_name: str = "",
        disable_lora: bool = False,
        outputs: Sequence[str] = ("logps",),
        micro_batch_size: int | None = None,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> ModelOutput:
        """A forward pass in evaluation mode, without gradients, giving ``outputs`` (names of ``ModelOutput``).

        ``calculate_loss`` may follow (``kwargs`` are kept for the loss), and metrics of evaluation take it in. ``disable_lora``
        runs the base model alone; adapters are back afterwards, also where something raises.

        Raises:
            ConfigError: there is no output of that name.
        """
        return self._passes.evaluate(
            self._states.find(adapter_name),
            inputs,
            outputs,
            disable_lora=disable_lora,
            micro_batch_size=micro_batch_size,
            temperature=temperature,
            loss_kwargs=kwargs,
        )

    @remote_function(collect="mean", sync=True)
    def calculate_loss(self, /, *, adapter_name: str = "", **kwargs: Any) -> float:
        """The loss of the last forward pass as a mean over its own tokens. ``kwargs`` go to the loss, over those of the pass.

        Raises:
            ConfigError: there was no forward pass.
        """
        state = self._states.find(adapter_name)
        passed = state.last_pass
        if passed is None:
            raise ConfigError("There is nothing to calculate a loss of: call forward or forward_only first.")
        loss_output = self._passes.loss(state, passed, kwargs)
        state.measure(passed, training=passed is state.train_pass)
        return float(steps.joint_loss([loss_output]))

    @remote_function(collect="first")
    def backward(self, *, adapter_name: str = "") -> None:
        """Accumulate the gradients of the last ``calculate_loss``; the graph is gone afterwards.

        Raises:
            ConfigError: there is no forward pass that ``forward`` and ``calculate_loss`` made.
        """
        state = self._states.find(adapter_name)
        passed, state.train_pass = state.train_pass, None
        if passed is not None and passed.batch is None:
            state.accumulation.skip()
            return
        if passed is None or passed.loss_output is None:
            raise ConfigError("There is no loss to go back from: call forward and calculate_loss first.")
        steps.backward(state, passed.loss_output)
        passed.outputs = detached(passed.outputs)

    @remote_function(dispatch="slice_dp", collect=collect_outputs)
    def forward_backward(
        self,
        /,
        *,
        inputs: Any,
        adapter_name: str = "",
        micro_batch_size: int | None = None,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> ModelOutput:
        """Forward, loss and backward, as one micro-step of the accumulation.

        Args:
            inputs: rows (``InputFeature``), trajectories (with a template), or a collated ``Batch``.
            micro_batch_size: work on this many rows at a time. Changes memory, not gradients.
            kwargs: go to the loss. Lists, arrays and tensors with one entry for each row are cut with the rows.

        Returns:
            The outputs that the loss and the metrics needed, without their graph, and ``loss``: the mean over the tokens.
        """
        state = self._states.find(adapter_name)
        return self._passes.train_backward(
            state, inputs, micro_batch_size=micro_batch_size, temperature=temperature, loss_kwargs=kwargs
        )

    # The optimizer step -------------------------------------------------------------------------------------------------------

    @remote_function(collect="first")
    def clip_grad_norm(self, max_grad_norm: float = 1.0, *, adapter_name: str = "") -> float:
        """Normalise and clip the accumulated gradients; returns their norm before clipping, 0 where no step is due."""
        state = self._states.find(adapter_name)
        return steps.clip(state, self._parallel, max_grad_norm) if state.due() else 0.0

    @remote_function(collect="first")
    def step(self, *, adapter_name: str = "") -> None:
        """An optimizer step, where one is due."""
        state = self._states.find(adapter_name)
        if state.due():
            steps.step(state, self._parallel)

    @remote_function(collect="first")
    def zero_grad(self, *, adapter_name: str = "") -> None:
        """Forget the accumulated gradients, where a step was due; between, they go on accumulating."""
        state = self._states.find(adapter_name)
        if state.due():
            state.zero_grad()

    @remote_function(collect="first")
    def lr_step(self, *, adapter_name: str = "") -> None:
        """A step of the schedule, where an optimizer step was made since the last."""
        steps.advance_schedule(self._states.find(adapter_name))

    @remote_function(collect="first")
    def clip_grad_and_step(
        self, max_grad_norm: float = 1.0, *, gradient_accumulation_steps: int | None = None, adapter_name: str = ""
    ) -> float | None:
        """Clip, step, advance the schedule and forget the gradients, where a step is due.

        Returns the norm before clipping, or None where no step was due. ``gradient_accumulation_steps`` overrides the adapter's for
        this call; 1 makes a step of whatever has been accumulated, such as the rest at the end of the data.
        """
        state = self._states.find(adapter_name)
        if gradient_accumulation_steps is not None:
            check_positive("gradient_accumulation_steps", gradient_accumulation_steps)
        if not state.due(gradient_accumulation_steps):
            return None
        norm = steps.clip(state, self._parallel, max_grad_norm)
        steps.step(state, self._parallel)
        state.zero_grad()
        steps.advance_schedule(state)
        return norm

    # What is configured -------------------------------------------------------------------------------------------------------

    @remote_function(collect="first")
    def set_loss(self, /, loss: object, *, adapter_name: str = "", **config: Any) -> None:
        """Choose the loss: an instance, class, function or reference."""
        state = self._states.find(adapter_name)
        state.loss = make_component("loss", loss, **config)

    @remote_function(collect="first")
    def set_optimizer(self, /, optimizer_cls: object = "AdamW", *, adapter_name: str = "", **config: Any) -> None:
        """Choose the optimizer: a name in ``torch.optim``, a class, a reference or an instance.

        Where no adapter was added, all parameters are trained, in float32.
        """
        state = self._states.find(adapter_name)
        if not state.name:
            self._prepare_full(state)
        state.optimizer = build_optimizer(optimizer_cls, state.parameters, config)
        state.scheduler = None

    def _prepare_full(self, state: AdapterState) -> None:
        """Weights that are trained under autocast have to be float32: updates are smaller than bfloat16 can add."""
        if self._precision.autocast is not None:
            self._base.float()
            state.parameters = [parameter for parameter in self._base.parameters() if parameter.requires_grad]

    @remote_function(collect="first")
    def set_lr_scheduler(self, /, scheduler_cls: object, *, adapter_name: str = "", **config: Any) -> None:
        """Choose the schedule: a component, or a name in ``torch.optim.lr_scheduler``. Steps are optimizer steps.

        Raises:
            ConfigError: no optimizer was chosen before.
        """
        state = self._states.find(adapter_name)
        if state.optimizer is None:
            raise ConfigError(f"{steps.described(state)} has no optimizer yet: call set_optimizer before set_lr_scheduler.")
        state.scheduler = build_scheduler(scheduler_cls, state.optimizer, config)

    @remote_function(collect="first")
    def set_template(self, /, template_cls: object, *, adapter_name: str = "", **config: Any) -> None:
        """Choose the template for trajectories; its ``model_id`` is this model's unless given."""
        state = self._states.find(adapter_name)
        if isinstance(template_cls, str | type) and "model_id" not in config and self.model_id is not None:
            config["model_id"] = self.model_id
        state.template = make_component("template", template_cls, **config)

    @remote_function(collect="first")
    def set_processor(self, /, processor_cls: object, *, adapter_name: str = "", **config: Any) -> None:
        """Choose how rows are collated. Where it takes a ``device``, that is this model's unless given."""
        state = self._states.find(adapter_name)
        if isinstance(processor_cls, str | type):
            found = load_component("processor", processor_cls)
            if "device" in inspect.signature(found).parameters:
                config.setdefault("device", self._device)
        state.processor = make_component("processor", processor_cls, **config)

    @remote_function(collect="first")
    def add_metric(self, /, metric_cls: object, *, is_training: bool | None = None, adapter_name: str = "", **config: Any) -> None:
        """Add a metric, for training, for evaluation, or (None) for both."""
        state = self._states.find(adapter_name)
        for training in (True, False):
            if is_training in (None, training):
                self._states.attach_metric(state, metric_cls, config, training=training)

    @remote_function(collect="first")
    def calculate_metric(self, *, is_training: bool, adapter_name: str = "") -> Measurements:
        """The metrics since the last call, over all ranks; every rank has to call it."""
        return self._states.find(adapter_name).calculate(training=is_training)

    @remote_function(collect="first")
    def apply_patch(self, /, patch: object, **config: Any) -> None:
        """Apply a patch, by reference, to the underlying model."""
        apply_patch(self._base, make_component("patch", patch, **config) if config else patch)
        self._passes.forget_model()

    @remote_function(collect="first")
    def get_train_configs(self, *, adapter_name: str = "") -> str:
        """What this run is configured with, for people: one line each."""
        return describe(
            self._states.find(adapter_name),
            self._base,
            model_id=self.model_id,
            precision=self._precision,
            ranks=self._parallel.size,
        )

    # Checkpoints --------------------------------------------------------------------------------------------------------------

    @remote_function(collect="first")
    def save(
        self,
        /,
        name: str,
        *,
        output_dir: str | Path | None = None,
        adapter_name: str = "",
        save_optimizer: bool = True,
        data_state: Mapping[str, Any] | None = None,
        consumed_train_samples: int | None = None,
        **kwargs: Any,
    ) -> Path:
        """Write the checkpoint ``output_dir/name`` (``output/name``), whole or not at all; returns its folder.

        An adapter is written in PEFT's format, a full model in Transformers'. With ``save_optimizer`` everything that resuming
        needs is written beside it, with the data position: ``data_state`` (a data loader's ``get_state()``) or
        ``consumed_train_samples``. Every rank has to call it; the master writes.

        Raises:
            CheckpointError: it can't be written; what was there before is untouched.
        """
        _refuse("save", kwargs)
        state = self._states.find(adapter_name)
        data = dict(data_state or {})
        if consumed_train_samples is not None:
            data["consumed_train_samples"] = consumed_train_samples
        return self._checkpoints.save(checkpoint_path(name, output_dir), state, training=save_optimizer, data=data)

    @remote_function(collect="first", sync=True)
    def load(
        self,
        /,
        name: str | Path,
        *,
        output_dir: str | Path | None = None,
        adapter_name: str = "",
        load_optimizer: bool = False,
        **kwargs: Any,
    ) -> None:
        """Read weights, and with ``load_optimizer`` everything that ``save`` wrote, from a checkpoint.

        ``name`` is one below ``output_dir``, or a folder's path.

        Raises:
            CheckpointError: it is missing, cut short or another model's; names the file. Nothing was changed.
        """
        _refuse("load", kwargs)
        is_path = output_dir is None and (Path(name).is_dir() or Path(name).name != str(name))
        folder = Path(name) if is_path else checkpoint_path(str(name), output_dir)
        self._checkpoints.read(folder, self._states.find(adapter_name), training=load_optimizer)

    @remote_function(collect="first")
    def resume_from_checkpoint(self, checkpoint: str | Path, *, adapter_name: str = "", verify: bool = False) -> dict[str, Any]:
        """Continue exactly where a checkpoint was written: weights, optimizer, schedule, random state, counters.

        Set the same optimizer and schedule before. Returns the data position that was saved, for the data loader's
        ``resume_from_checkpoint``; an accumulation that had begun is not in a checkpoint. ``verify``: only where the run that wrote
        it was made of what this one is (``twinkle run verify``).

        Raises:
            CheckpointError: it is missing, cut short or another model's; names the file. Nothing was changed.
        """
        return self._checkpoints.read(Path(checkpoint), self._states.find(adapter_name), training=True, verify=verify)

    @remote_function(collect="first")
    def get_state_dict(self, *, adapter_name: str = "") -> dict[str, Tensor]:
        """The trained weights by name: an adapter's under the names of PEFT's files, else all of the model's. Not copies."""
        state = self._states.find(adapter_name)
        found: dict[str, Tensor] = self._adapters.state_dict(state.name) if state.name else self._base.state_dict()
        return found

    @remote_function(collect="first")
    def upload_to_hub(
        self,
        /,
        checkpoint_dir: str | Path,
        hub_model_id: str,
        *,
        hub_token: str | None = None,
        private: bool = True,
        commit_message: str = "Upload checkpoint",
        background: bool = False,
        **kwargs: Any,
    ) -> str | UploadHandle:
        """Publish a whole checkpoint as ``scheme://owner/name[@branch]``; returns where, or with ``background`` at once a handle.

        The master does it (elsewhere ``background`` returns the name). ``CheckpointError`` says why it can't be published."""
        _refuse("upload_to_hub", kwargs)
        publishing = Publishing(hub_model_id, private, commit_message, hub_token)
        return self._checkpoints.upload(Path(checkpoint_dir), publishing, background=background)

    # Answers ------------------------------------------------------------------------------------------------------------------

    @remote_function(dispatch="slice_dp", collect="flatten")
    def generate(
        self,
        inputs: Sequence[InputFeature | Trajectory],
        sampling_params: SamplingParams | None = None,
        *,
        adapter_name: str = "",
        disable_lora: bool = False,
    ) -> list[SampleResponse]:
        """What the model answers now: one response for each prompt, in order; greedy at temperature 0.

        Trajectories need a template (``set_template``). Meant for looking at a model while it trains; a sampler is faster.
        """
        state = self._states.find(adapter_name)
        with self._passes.running(state, training=False, disable_lora=disable_lora), self._precision.context():
            return generate(self._base, state.template, inputs, sampling_params or SamplingParams(), device=self._device)


def _refuse(method: str, kwargs: Mapping[str, Any]) -> None:
    if kwargs:
        raise ConfigError(f"{method} doesn't take {', '.join(kwargs)}.")
