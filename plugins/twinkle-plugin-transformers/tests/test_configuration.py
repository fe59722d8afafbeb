"""Losses, optimizers, schedules and the model itself by name; what is wrong is refused by name."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config

from twinkle import DeviceMesh
from twinkle.errors import ComponentNotFoundError, ConfigError, DataError, MeshError
from twinkle.loss import CrossEntropyLoss, Loss
from twinkle.model import TransformersModel
from twinkle.patch import Patch
from twinkle.processor import InputProcessor


def test_a_wrong_loss_names_the_nearest(make_model):
    with pytest.raises(ComponentNotFoundError, match="CrossEntropyLoss"):
        make_model().set_loss("CrossEntropyLos")


@pytest.mark.parametrize(
    "loss",
    ["CrossEntropyLoss", "twinkle-plugin-losses/CrossEntropyLoss", CrossEntropyLoss, CrossEntropyLoss()],
    ids=["name", "reference", "class", "instance"],
)
def test_a_loss_is_a_name_a_reference_a_class_or_an_instance(make_model, make_rows, loss):
    model = make_model()
    expected = float(model.forward_backward(inputs=make_rows(2))["loss"])
    model.set_loss(loss)
    assert float(model.forward_backward(inputs=make_rows(2))["loss"]) == pytest.approx(expected)


class Everything(Loss):
    """Asks for every output."""

    require_logits = require_logps = require_mean_logps = require_entropy = True

    def __call__(self, inputs, outputs, **kwargs):
        self.seen = {name: tuple(value.shape) for name, value in outputs.items()}
        return {"loss": -outputs["logps"].sum() + outputs["entropies"].sum(), "num_tokens": 1.0}


def test_a_loss_gets_what_it_asks_for_and_nothing_else(make_model, make_rows):
    model, loss = make_model(), Everything()
    assert set(model.forward_backward(inputs=make_rows(2))) == {"logps", "loss"}
    model.set_loss(loss)
    model.forward_backward(inputs=make_rows(2))
    assert set(loss.seen) == {"logits", "logps", "mean_logps", "entropies"}
    assert loss.seen["logits"][:2] == loss.seen["logps"]


def test_the_head_is_split_and_whole_alike(make_model, make_rows):
    model = make_model()
    names = ["logps", "mean_logps", "entropies", "correct"]
    rows = make_rows(3)
    split = model.forward_only(inputs=rows, outputs=names)
    whole = model.forward_only(inputs=rows, outputs=[*names, "logits"])
    for name in names:
        torch.testing.assert_close(split[name], whole[name], rtol=1e-5, atol=1e-5)
    cool = model.forward_only(inputs=rows, outputs=["logps"], temperature=0.5)["logps"]
    torch.testing.assert_close(cool, model.forward_only(inputs=rows, outputs=["logps", "logits"], temperature=0.5)["logps"])


def test_an_output_that_no_model_gives_is_refused(make_model, make_rows):
    with pytest.raises(ConfigError, match=r"logps.*not logprobs"):
        make_model().forward_only(inputs=make_rows(1), outputs=["logprobs"])


def test_rows_without_labels_give_logits_but_no_log_probabilities(make_model):
    model = make_model()
    rows = [{"input_ids": [5, 6, 7]}]
    assert model.forward_only(inputs=rows, outputs=["logits"])["logits"].shape == (1, 3, 257)
    with pytest.raises(DataError, match="no labels"):
        model.forward_only(inputs=rows)


def test_a_wrong_optimizer_names_the_nearest(make_model):
    with pytest.raises(ComponentNotFoundError, match="AdamW"):
        make_model().set_optimizer("AdamWW", lr=1e-3)


@pytest.mark.parametrize("options", [{"learning_rate": 1e-3}, {"lr": -1.0}], ids=str)
def test_options_that_an_optimizer_does_not_take_are_refused(make_model, options):
    with pytest.raises(ConfigError, match="AdamW"):
        make_model().set_optimizer("AdamW", **options)


@pytest.mark.parametrize("optimizer", ["SGD", torch.optim.SGD], ids=["name", "class"])
def test_an_optimizer_is_a_name_or_a_class(make_model, make_rows, optimizer):
    model = make_model()
    model.set_optimizer(optimizer, lr=0.1)
    model.forward_backward(inputs=make_rows(2))
    assert model.clip_grad_and_step() > 0


def test_an_optimizer_over_other_parameters_is_refused(make_model):
    with pytest.raises(ConfigError, match="aren't trained"):
        make_model().set_optimizer(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))


def test_a_step_without_an_optimizer_says_so(config, lora, make_rows):
    model = TransformersModel(config=config)
    model.add_adapter_to_model("default", lora())
    model.forward_backward(inputs=make_rows(1))
    with pytest.raises(ConfigError, match="set_optimizer"):
        model.clip_grad_and_step()
    with pytest.raises(ConfigError, match="set_optimizer"):
        TransformersModel(config=config).set_lr_scheduler("CosineWarmupScheduler", num_training_steps=5)


@pytest.mark.parametrize(
    ("scheduler", "options"), [("StepLR", {"step_size": 1, "gamma": 0.5}), ("LinearWarmupScheduler", {"num_training_steps": 2})]
)
def test_a_schedule_is_a_component_or_torchs_own(make_model, make_rows, scheduler, options):
    model = make_model(lr=1.0)
    model.set_lr_scheduler(scheduler, **options)
    model.forward_backward(inputs=make_rows(1))
    model.clip_grad_and_step()
    model.calculate_metric(is_training=True)
    model.forward_backward(inputs=make_rows(1))
    model.clip_grad_and_step()
    assert model.calculate_metric(is_training=True)["lr"] == 0.5


def test_a_wrong_schedule_names_the_nearest(make_model):
    with pytest.raises(ComponentNotFoundError, match="CosineWarmupScheduler"):
        make_model().set_lr_scheduler("CosineWarmupSchedule", num_training_steps=5)


def test_trajectories_need_a_template(make_model):
    with pytest.raises(ConfigError, match="set_template"):
        make_model().forward_backward(inputs=[{"messages": [{"role": "user", "content": "Hi"}]}])


class Doubled(Patch):
    def __call__(self, module, *args, **kwargs):
        with torch.no_grad():
            module.get_output_embeddings().weight.mul_(2)


def test_a_patch_is_applied_to_the_model(make_model):
    model = make_model()
    before = model.model.get_output_embeddings().weight.clone()
    model.apply_patch(Doubled)
    assert torch.equal(model.model.get_output_embeddings().weight, 2 * before)


def test_the_configuration_is_told_in_words(make_model):
    model = make_model(accumulation=3, lr=0.25)
    model.set_lr_scheduler("CosineWarmupScheduler", num_warmup_steps=5, num_training_steps=9)
    told = model.get_train_configs()
    for word in (
        "Qwen3ForCausalLM",
        "float32",
        "'default'",
        "rank 4",
        "CrossEntropyLoss",
        "lr=0.25",
        "num_warmup_steps=5",
        "3 micro",
    ):
        assert word in told


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mixed_precision": "bf8"}, "bf8"),
        ({"strategy": "deepspeed"}, "deepspeed"),
        ({"fsdp_config": {"reshard": True}}, "fsdp_config"),
        ({"ddp_config": {"find_unused_parameters": True}}, "find_unused_parameters"),
        ({"grad_scaler_config": {"init": 1}}, "init"),
        ({"model_cls": "AutoModelForCausalML"}, "AutoModelForCausalML"),
        ({"not_an_option": 1}, "not_an_option"),
        ({"config": 3}, "int"),
        ({"config": None}, "model_id"),
    ],
    ids=str,
)
def test_what_a_model_cannot_be_made_from_is_named(config, options, named):
    with pytest.raises(ConfigError, match=named):
        TransformersModel(**{"config": config, **options})


def test_a_mesh_that_is_not_data_parallel_or_does_not_fit_is_refused(config):
    with pytest.raises(ConfigError, match="data parallelism only"):
        TransformersModel(config=config, device_mesh=DeviceMesh.from_sizes(world_size=2, tp_size=2))
    with pytest.raises(MeshError):
        TransformersModel(config=config, device_mesh=DeviceMesh.from_sizes(dp_size=2))


def test_a_model_that_is_not_there_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty"):
        TransformersModel(model_id=str(tmp_path / "empty"))


def test_random_weights_depend_on_the_seed_only(config):
    first = TransformersModel(config=config).get_state_dict()
    torch.rand(3)
    second = TransformersModel(config=config).get_state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_group_of_workers_means_nothing_where_there_are_none(config, make_rows):
    model = TransformersModel(config=config, remote_group="default")
    assert float(model.forward_backward(inputs=make_rows(1))["loss"]) > 0


@pytest.mark.parametrize(
    "processor", ["InputProcessor", "twinkle-plugin-data/InputProcessor", InputProcessor], ids=["name", "reference", "class"]
)
def test_a_processor_collates_to_the_models_device(make_model, processor):
    model = make_model()
    model.set_processor(processor)
    assert model._states.find("").processor.device == model.device


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"input_ids": [5, 300, 6], "labels": [5, 6, 7]},
            "Row 1 of the batch has the token 300, but the model's vocabulary has 257",
        ),
        ({"input_ids": [5, -1, 6], "labels": [5, 6, 7]}, "token -1"),
        ({"input_ids": [5, 6, 7], "labels": [5, 6, 257]}, "label 257"),
    ],
    ids=["token", "negative", "label"],
)
def test_a_token_of_another_vocabulary_names_its_row(make_model, make_rows, row, told):
    model = make_model()
    with pytest.raises(DataError, match=told):
        model.forward_backward(inputs=[*make_rows(1), row])
    with pytest.raises(DataError, match="vocabulary"):
        model.generate([{"input_ids": [300]}])


def test_a_row_longer_than_a_table_of_positions_is_refused(lora):
    model = TransformersModel(config=GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=8))
    model.add_adapter_to_model("default", lora(target_modules=["c_attn"], fan_in_fan_out=True))
    fits, longer = ({"input_ids": [3] * length, "labels": [3] * length} for length in (8, 9))
    assert float(model.forward_backward(inputs=[fits])["loss"]) > 0
    with pytest.raises(DataError, match="9 tokens, but the model has 8 positions"):
        model.forward_backward(inputs=[longer])


def test_a_row_longer_than_a_rotary_model_was_made_for_is_told_once(make_model, caplog):
    model = make_model()
    row = {"input_ids": [3] * 130, "labels": [3] * 130}
    for _ in range(2):
        assert float(model.forward_backward(inputs=[row])["loss"]) > 0
    assert [record.getMessage() for record in caplog.records if "130 tokens" in record.getMessage()] == [
        "A row has 130 tokens; the model was made for 128. Set max_length in the template to cut it."
    ]


def test_a_loss_that_was_set_after_the_pass_says_what_it_lacks(make_model, make_rows):
    model = make_model()
    model.forward(inputs=make_rows(1))
    model.set_loss(Everything)
    with pytest.raises(ConfigError, match=r"Everything needs logits, mean_logps, entropies.*set the loss before"):
        model.calculate_loss()
