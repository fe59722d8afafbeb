"""Somebody else's plugin: pip-installed it is there, used like our own, and uninstalled it is gone."""

from pathlib import Path

TRAIN = """
from twinkle.loss import StrangersLoss
from twinkle.model import TransformersModel
from transformers import Qwen3Config

config = Qwen3Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
                     intermediate_size=32, vocab_size=64)
model = TransformersModel(config=config, mixed_precision='no')
model.set_optimizer('AdamW', lr=1e-3)
row = {'input_ids': [1, 2, 3, 4], 'labels': [-100, 2, 3, 4]}
losses = []
for loss in ('CrossEntropyLoss', 'StrangersLoss', 'twinkle-plugin-stranger/StrangersLoss', StrangersLoss):
    model.set_loss(loss)
    losses.append(float(model.forward_backward(inputs=[row])['loss']))
model.set_loss('StrangersLoss', scale=3.0)
losses.append(float(model.forward_backward(inputs=[row])['loss']) / 3)
assert max(losses) - min(losses) < 1e-5, losses
try:
    model.set_loss('StrangersLoss', scale=-1.0)
except ValueError as error:
    assert 'scale' in str(error) and 'StrangersLoss' in str(error), error
else:
    raise AssertionError('scale=-1 was taken')
print('trained')
"""


def test_an_installed_plugin_is_listed_importable_and_trainable_and_gone_when_removed(
    child_environment, build_wheel, checkout: Path
):
    name = "twinkle-plugin-stranger"
    assert name not in child_environment.plugins()
    child_environment.install("-q", "--no-deps", str(build_wheel(checkout / "tests" / "data" / name)))
    assert child_environment.plugins()[name] == ["StrangersLoss"]
    assert child_environment.run("python", "-c", TRAIN).stdout.strip().endswith("trained")
    child_environment.uninstall(name)
    assert name not in child_environment.plugins()
    gone = child_environment.run("python", "-c", "from twinkle.loss import StrangersLoss", check=False)
    assert "No loss named 'StrangersLoss'" in gone.stderr


def test_a_plugin_that_raises_at_import_costs_one_warning_and_no_command(
    child_environment, build_wheel, checkout: Path, tmp_path: Path
):
    source = checkout / "tests" / "data" / "twinkle-plugin-stranger"
    broken = tmp_path / "broken"
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = broken / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (broken / "src/twinkle_plugin_stranger/loss.py").write_text("raise RuntimeError('the stranger is ill')\n")
    child_environment.install("-q", "--no-deps", str(build_wheel(broken)))
    assert "twinkle-plugin-stranger" in child_environment.plugins()
    used = child_environment.run("python", "-c", "from twinkle.loss import StrangersLoss", check=False)
    assert "twinkle-plugin-stranger" in used.stderr
    assert "the stranger is ill" in used.stderr
    doctor = child_environment.run("twinkle", "plugins", "doctor", check=False)
    assert doctor.returncode == 1
    assert "the stranger is ill" in doctor.stdout
    assert "CrossEntropyLoss" in doctor.stdout
