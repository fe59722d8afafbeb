"""Several adapters on one model, and what happens where a name or a configuration is wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from twinkle.errors import AdapterError, CheckpointError, ConfigError, TwinkleError
from twinkle.model import TransformersModel


def snapshot(model: TransformersModel) -> tuple[list[str], dict[str, bool], dict[str, torch.Tensor]]:
    """Every module, what is trained, and every weight."""
    modules = [f"{name}:{type(module).__name__}" for name, module in model.model.named_modules()]
    trained = {name: value.requires_grad for name, value in model.model.named_parameters()}
    return modules, trained, {name: value.clone() for name, value in model.model.state_dict().items()}


def assert_unchanged(before, model: TransformersModel) -> None:
    modules, trained, weights = snapshot(model)
    assert (modules, trained) == before[:2]
    assert all(torch.equal(value, before[2][name]) for name, value in weights.items())


def test_an_unknown_name_lists_those_that_are_there(make_model, make_rows):
    model = make_model()
    with pytest.raises(AdapterError, match=r"no adapter 'defualt'\. Adapters: default"):
        model.forward_backward(inputs=make_rows(1), adapter_name="defualt")


def test_an_unknown_name_on_a_model_without_adapters_says_how_to_add_one(make_model):
    with pytest.raises(AdapterError, match="add_adapter_to_model"):
        make_model(adapter=False).set_loss("CrossEntropyLoss", adapter_name="mine")


def test_adding_a_name_twice_changes_nothing(make_model, lora):
    model = make_model()
    before = snapshot(model)
    with pytest.raises(AdapterError, match="already"):
        model.add_adapter_to_model("default", lora(r=2))
    assert_unchanged(before, model)


@pytest.mark.parametrize("first", [True, False], ids=["first adapter", "second adapter"])
@pytest.mark.parametrize("options", [{"target_modules": ["no_such_layer"]}, {"r": 0}, {"init_lora_weights": "nonsense"}], ids=str)
def test_a_failed_add_leaves_nothing_behind(make_model, make_rows, lora, config, first, options):
    model = TransformersModel(config=config) if first else make_model()
    before = snapshot(model)
    with pytest.raises(ConfigError, match="'ghost'"):
        model.add_adapter_to_model("ghost", lora(**options))
    assert_unchanged(before, model)
    with pytest.raises(AdapterError):
        model.set_optimizer("AdamW", adapter_name="ghost")
    model.add_adapter_to_model("ghost", lora())
    model.set_optimizer("AdamW", adapter_name="ghost")
    model.forward_backward(inputs=make_rows(2), adapter_name="ghost")
    assert model.clip_grad_and_step(adapter_name="ghost") > 0


def test_a_wrong_accumulation_leaves_nothing_behind(config, lora):
    model = TransformersModel(config=config)
    before = snapshot(model)
    with pytest.raises(ConfigError, match="gradient_accumulation_steps"):
        model.add_adapter_to_model("default", lora(), gradient_accumulation_steps=0)
    assert_unchanged(before, model)


def test_with_several_adapters_a_name_is_needed(make_model, make_rows, lora):
    model = make_model()
    model.add_adapter_to_model("other", lora())
    with pytest.raises(AdapterError, match=r"Give adapter_name\. Adapters: default, other"):
        model.forward_only(inputs=make_rows(1))


def test_interleaved_adapters_train_as_if_each_were_alone(make_model, make_rows, lora, config):
    together = TransformersModel(config=config)
    alone = {}
    for name, rank in (("first", 4), ("second", 2)):
        for model in (together, alone.setdefault(name, TransformersModel(config=config))):
            model.add_adapter_to_model(name, lora(r=rank), gradient_accumulation_steps=2)
            model.set_optimizer("AdamW", lr=1e-2, adapter_name=name)
    for step in range(4):
        for seed, name in enumerate(("first", "second")):
            rows = make_rows(2, seed=10 * seed + step)
            together.forward_backward(inputs=rows, adapter_name=name)
            together.clip_grad_and_step(adapter_name=name)
            alone[name].forward_backward(inputs=rows)
            alone[name].clip_grad_and_step()
    for name, model in alone.items():
        expected = model.get_state_dict()
        for key, value in together.get_state_dict(adapter_name=name).items():
            assert torch.equal(value, expected[key])


def test_new_adapters_do_not_depend_on_what_was_drawn_before(config, lora):
    weights = []
    for draws in (0, 5):
        torch.rand(draws)
        model = TransformersModel(config=config)
        model.add_adapter_to_model("default", lora())
        weights.append(model.get_state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_adding_an_adapter_leaves_the_random_state(config, lora):
    model = TransformersModel(config=config)
    before = torch.get_rng_state()
    model.add_adapter_to_model("default", lora())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_base_model_answers_with_lora_disabled(make_model, make_rows):
    rows = make_rows(2)
    base = make_model(adapter=False).forward_only(inputs=rows)["logps"]
    model = make_model()
    assert not torch.allclose(model.forward_only(inputs=rows)["logps"], base, atol=1e-3)
    torch.testing.assert_close(model.forward_only(inputs=rows, disable_lora=True)["logps"], base)


def test_an_exception_with_lora_disabled_leaves_nothing_disabled(make_model, make_rows):
    model = make_model()
    rows = make_rows(2)
    expected = model.forward_only(inputs=rows)["logps"]
    before = snapshot(model)
    with pytest.raises(TwinkleError, match="labels"):
        model.forward_only(inputs=[{"input_ids": [1, 2, 3]}], disable_lora=True)
    with pytest.raises(TwinkleError, match="vocabulary"):
        model.forward_only(inputs=[{"input_ids": [1, 10**6], "labels": [1, 1]}], disable_lora=True)
    assert_unchanged(before, model)
    assert torch.equal(model.forward_only(inputs=rows)["logps"], expected)


def test_full_training_excludes_adapters(make_model, lora):
    model = make_model(adapter=False)
    before = snapshot(model)
    with pytest.raises(AdapterError, match="full parameters"):
        model.add_adapter_to_model("default", lora())
    assert_unchanged(before, model)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "../x"])
def test_a_name_that_cannot_be_one_is_refused(config, lora, name):
    with pytest.raises(ConfigError, match="letters, digits"):
        TransformersModel(config=config).add_adapter_to_model(name, lora())


def test_what_is_no_peft_configuration_is_refused(config):
    with pytest.raises(ConfigError, match="PEFT configuration"):
        TransformersModel(config=config).add_adapter_to_model("default", {"r": 8})


def test_the_callers_configuration_is_not_changed(config, lora):
    given, same = lora(), lora()
    TransformersModel(config=config).add_adapter_to_model("default", given)
    assert given.to_dict() == same.to_dict()


@pytest.mark.parametrize("name", ["lora", "a", "q_proj", "model", "lora_A", "weight"])
def test_a_name_that_modules_have_too_is_a_name_like_any_other(make_model, lora, tmp_path, name):
    model = make_model()
    before = {key: value.clone() for key, value in model.get_state_dict().items()}
    model.add_adapter_to_model(name, lora(init_lora_weights=False))
    for adapter in ("default", name):
        assert model.get_state_dict(adapter_name=adapter).keys() == before.keys()
    folder = model.save("named", output_dir=tmp_path, adapter_name=name)
    model.load(folder, adapter_name="default")
    for key, value in model.get_state_dict(adapter_name="default").items():
        assert torch.equal(value, model.get_state_dict(adapter_name=name)[key])


@pytest.mark.parametrize("first", [True, False], ids=["first adapter", "second adapter"])
def test_a_saved_adapter_that_does_not_fit_leaves_nothing_behind(make_model, make_rows, lora, config, tmp_path, first):
    folder = make_model().save("adapter", output_dir=tmp_path)
    weights = load_file(folder / "adapter_model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: torch.zeros(1, 1)}, folder / "adapter_model.safetensors")
    (folder / "twinkle_checkpoint.json").unlink()
    model = TransformersModel(config=config) if first else make_model()
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=r"'ghost'.*instead of"):
        model.add_adapter_to_model("ghost", folder)
    assert_unchanged(before, model)
    model.set_optimizer("AdamW", lr=1e-2)
    model.forward_backward(inputs=make_rows(2))
    assert model.clip_grad_and_step() > 0


@pytest.mark.parametrize("biased", ["first", "second"])
def test_adapters_do_not_share_trained_biases(config, lora, biased):
    config.attention_bias = True
    model = TransformersModel(config=config)
    model.add_adapter_to_model("first", lora(bias="all" if biased == "first" else "none"))
    before = snapshot(model)
    with pytest.raises(ConfigError, match=r"'second'.*bias='none'"):
        model.add_adapter_to_model("second", lora(bias="all" if biased == "second" else "none"))
    assert_unchanged(before, model)


def test_what_was_chosen_before_the_first_adapter_holds_for_it(config, lora, make_rows):
    model = TransformersModel(config=config)
    model.add_metric("Accuracy")
    model.add_adapter_to_model("default", lora())
    model.forward_backward(inputs=make_rows(2))
    assert "accuracy" in model.calculate_metric(is_training=True)


@pytest.mark.parametrize("same", [True, False], ids=["same base", "another base"])
def test_copies_of_the_base_model_in_an_adapters_file_are_for_the_same_base_model(config, lora, tmp_path, same):
    config.tie_word_embeddings = False
    model = TransformersModel(config=config)
    base = copy.deepcopy(model.model)
    if not same:
        with torch.no_grad():
            base.lm_head.weight.add_(1)
    adapted = get_peft_model(base, lora(target_modules=["q_proj", "lm_head"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path, save_embedding_layers=True)
    assert any(".base_layer." in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    if same:
        model.add_adapter_to_model("default", tmp_path)
        assert model.get_state_dict().keys() == get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    else:
        before = snapshot(model)
        with pytest.raises(CheckpointError, match="base_layer"):
            model.add_adapter_to_model("default", tmp_path)
        assert_unchanged(before, model)
