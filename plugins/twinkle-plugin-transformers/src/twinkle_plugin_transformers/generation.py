"""Completions by Transformers' own ``generate``, for looking at what a model answers.

Knows nothing of training, and nothing of speed: samplers are for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from twinkle.data_format import Batch, InputFeature, SampledSequence, SampleResponse, SamplingParams, Trajectory
from twinkle.errors import ConfigError, DataError
from twinkle_plugin_transformers.inputs import InputCheck


@torch.no_grad()
def generate(
    base: Any, template: Any, inputs: Sequence[InputFeature | Trajectory], params: SamplingParams, *, device: torch.device
) -> list[SampleResponse]:
    """Sample ``params.num_samples`` completions for each of ``inputs``, in order.

    With a seed and a temperature, prompts are sampled one by one, so that a sample doesn't depend on its batch, and the global
    random state isn't touched.

    Raises:
        ConfigError: an input is a trajectory and there is no template.
        DataError: an input has no tokens, or one that isn't in the vocabulary.
    """
    prompts = [_prompt_ids(row, template, place) for place, row in enumerate(inputs)]
    if not prompts:
        return []
    if params.seed is None or params.temperature == 0:
        return _sample(base, template, prompts, params, device)
    responses = []
    with torch.random.fork_rng():
        for prompt in prompts:
            torch.manual_seed(params.seed)
            responses += _sample(base, template, [prompt], params, device)
    return responses


def _prompt_ids(row: Any, template: Any, place: int) -> list[int]:
    if "input_ids" not in row:
        if template is None:
            raise ConfigError("These prompts are trajectories: call set_template('Template', model_id=…) first.")
        row = template.encode(row, add_generation_prompt=True)
    ids = [int(token) for token in row["input_ids"]]
    if not ids:
        raise DataError(f"Prompt {place} has no tokens.")
    return ids


def _sample(
    base: Any, template: Any, prompts: list[list[int]], params: SamplingParams, device: torch.device
) -> list[SampleResponse]:
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row] = prompt[0]  # padding is hidden from the model, but a repetition penalty looks at every token
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    InputCheck(base)(Batch(input_ids=ids))
    stops = _stop_ids(base, params)
    generated = base.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        generation_config=_config(params, stops),
    )
    tokens = generated.sequences[:, width:].cpu()
    logps = _logps(generated.logits, tokens) if params.logprobs else None
    sequences = [
        _sequence(
            prompts[place // params.num_samples], row.tolist(), None if logps is None else logps[place], stops, params, template
        )
        for place, row in enumerate(tokens)
    ]
    return [SampleResponse(sequences[start : start + params.num_samples]) for start in range(0, len(sequences), params.num_samples)]


def _config(params: SamplingParams, stops: list[int]) -> Any:
    from transformers import GenerationConfig

    common = {
        "max_new_tokens": params.max_tokens,
        "eos_token_id": stops or None,
        "pad_token_id": stops[0] if stops else 0,
        "repetition_penalty": params.repetition_penalty,
        "num_return_sequences": params.num_samples,
        "use_cache": True,
        "return_dict_in_generate": True,
        "output_logits": params.logprobs,
    }
    if params.temperature == 0:
        if params.num_samples > 1:
            raise ConfigError("At temperature 0 all samples are the same: give num_samples=1, or a temperature.")
        return GenerationConfig(do_sample=False, **common)
    return GenerationConfig(
        do_sample=True,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=max(params.top_k, 0),
        min_p=params.min_p or None,
        **common,
    )


def _stop_ids(base: Any, params: SamplingParams) -> list[int]:
    own = base.generation_config.eos_token_id if base.generation_config is not None else None
    listed = [] if own is None else [own] if isinstance(own, int) else list(own)
    return [*listed, *(token for token in params.stop_token_ids if token not in listed)]


def _logps(logits: Sequence[Tensor], tokens: Tensor) -> Tensor:
    """Log-probabilities of ``tokens [B, N]`` under the model's own distribution, before temperature and filters."""
    steps = [torch.log_softmax(step.float(), -1).cpu().gather(1, tokens[:, place : place + 1]) for place, step in enumerate(logits)]
    return torch.cat(steps, dim=1)


def _sequence(
    prompt: list[int], tokens: list[int], logps: Tensor | None, stops: list[int], params: SamplingParams, template: Any
) -> SampledSequence:
    end = next((place + 1 for place, token in enumerate(tokens) if token in stops), None)
    kept = tokens if end is None else tokens[:end]
    stopped = end is not None
    text = None if template is None else template.decode(kept[:-1] if stopped else kept)
    if text is not None:
        for stop in params.stop:
            if stop in text:
                text, stopped = text.split(stop, 1)[0], True
    return SampledSequence(
        tokens=kept,
        logprobs=None if logps is None else logps[: len(kept)].tolist(),
        text=text,
        stop_reason="stop" if stopped else "length",
        new_input_feature=InputFeature(input_ids=[*prompt, *kept], labels=[-100] * len(prompt) + kept),
    )
