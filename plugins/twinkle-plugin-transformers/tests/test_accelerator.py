"""On an accelerator: the same loss and the same step as on the CPU. Run with ``make test-gpu``."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from twinkle import Platform
from twinkle.model import TransformersModel

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def accelerator() -> str:
    if Platform.current().device_type == "cpu":
        pytest.skip("needs an accelerator, and there is only a CPU")
    return Platform.current().device_type


def _reference(model: TransformersModel, config) -> torch.nn.Module:
    """The same weights in a plain Transformers model on the CPU, in float32."""
    plain = AutoModelForCausalLM.from_config(config).float()
    plain.load_state_dict({name: value.float().cpu() for name, value in model.model.state_dict().items()})
    return plain


@pytest.mark.parametrize(("precision", "tolerance"), [("no", 1e-4), ("bf16", 5e-2)])
def test_loss_is_that_of_the_cpu(config, make_rows, accelerator: str, precision: str, tolerance: float):
    model = TransformersModel(config=config, mixed_precision=precision)
    plain = _reference(model, config)
    [row] = make_rows(1)
    loss = model.forward_backward(inputs=[row])["loss"]
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
    expected = plain(input_ids=ids, labels=labels).loss.detach()
    assert model.device.type == accelerator
    assert float(loss) == pytest.approx(float(expected), abs=tolerance)


def test_training_lowers_the_loss_and_the_checkpoint_loads_again(config, lora, make_rows, tmp_path):
    model = TransformersModel(config=config)
    model.add_adapter_to_model("default", lora())
    model.set_optimizer("AdamW", lr=1e-2)
    rows, losses = make_rows(4), []
    for _ in range(10):
        losses.append(float(model.forward_backward(inputs=rows)["loss"]))
        model.clip_grad_and_step()
    assert losses[-1] < losses[0]
    folder = model.save("checkpoint", output_dir=tmp_path)
    model.resume_from_checkpoint(folder)
