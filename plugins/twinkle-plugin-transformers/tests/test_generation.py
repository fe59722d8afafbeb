"""What a model answers."""

from __future__ import annotations

import pytest
import torch

from twinkle.data_format import SamplingParams
from twinkle.errors import ConfigError


def test_greedy_answers_do_not_depend_on_the_batch(make_model, make_rows):
    model = make_model()
    prompts = [{"input_ids": row["input_ids"]} for row in make_rows(3)]
    params = SamplingParams(temperature=0, max_tokens=6)
    together = model.generate(prompts, params)
    for prompt, response in zip(prompts, together, strict=True):
        assert model.generate([prompt], params)[0].sequences[0].tokens == response.sequences[0].tokens


def test_log_probabilities_are_the_models_own(make_model, make_rows):
    model = make_model()
    prompt = {"input_ids": make_rows(1)[0]["input_ids"]}
    sequence = model.generate([prompt], SamplingParams(temperature=0, max_tokens=5)).pop().sequences[0]
    logps = model.forward_only(inputs=[sequence.new_input_feature])["logps"][0]
    assert sequence.logprobs == pytest.approx(logps[len(prompt["input_ids"]) - 1 :][: len(sequence.tokens)].tolist(), abs=1e-4)


def test_a_seed_makes_a_sample_and_leaves_the_random_state(make_model, make_rows):
    model = make_model()
    prompts = [{"input_ids": row["input_ids"]} for row in make_rows(2)]
    before = torch.get_rng_state()
    params = SamplingParams(temperature=1.0, max_tokens=6, seed=3, num_samples=2)
    first, second = model.generate(prompts, params), model.generate(prompts[::-1], params)[::-1]
    assert torch.equal(torch.get_rng_state(), before)
    assert [s.tokens for r in first for s in r.sequences] == [s.tokens for r in second for s in r.sequences]
    assert [len(response.sequences) for response in first] == [2, 2]


def test_an_answer_stops_at_a_stop_token(make_model, make_rows):
    model = make_model()
    prompt = {"input_ids": make_rows(1)[0]["input_ids"]}
    free = model.generate([prompt], SamplingParams(temperature=0, max_tokens=4))[0].sequences[0]
    assert free.stop_reason == "length"
    stopped = model.generate([prompt], SamplingParams(temperature=0, max_tokens=4, stop_token_ids=(free.tokens[0],)))[0].sequences[
        0
    ]
    assert (stopped.tokens, stopped.stop_reason) == (free.tokens[:1], "stop")


def test_generating_leaves_training_as_it_was(make_model, make_rows):
    quiet, asked = make_model(), make_model()
    for step in range(2):
        for model in (quiet, asked):
            model.forward_backward(inputs=make_rows(2, seed=step))
            model.clip_grad_and_step()
        asked.generate([{"input_ids": [3, 4]}], SamplingParams(temperature=0, max_tokens=2))
    for ours, theirs in zip(asked.model.parameters(), quiet.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_trajectories_need_a_template(make_model):
    with pytest.raises(ConfigError, match="set_template"):
        make_model().generate([{"messages": [{"role": "user", "content": "Hi"}]}])


def test_padding_is_no_repetition(make_model):
    """Padding has token 0's number, or any other; a shorter prompt's answer must not avoid it."""
    model = make_model()
    with torch.no_grad():
        model.model.get_output_embeddings().weight[0] *= 20  # token 0 is likely, or very unlikely
    short = [{"input_ids": [first, 5, 6]} for first in range(2, 30)]
    params = SamplingParams(temperature=0, max_tokens=1, repetition_penalty=50.0)
    alone = [model.generate([prompt], params)[0].sequences[0].tokens for prompt in short]
    together = [response.sequences[0].tokens for response in model.generate([*short, {"input_ids": [7] * 12}], params)]
    assert [0] in alone
    assert together[:-1] == alone
