"""The cookbook's quick-start scripts: they run with no network, the loss falls, and two processes give the curve of one.

The scripts are run as they stand but for fewer rows, the same 40 again and again, so that losses can be compared; and for the line
that logs metrics, which writes exact numbers here.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

COOKBOOK = Path(__file__).resolve().parents[1] / "cookbook"
ROWS = "[index % 40 for index in range(320)]"
PASS, BATCHES = 5, 40
CHECKPOINT = Path("output/last-checkpoint")
LAUNCHERS = {
    "quickstart.py": [sys.executable],
    "quickstart_torchrun.py": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"],
}
LOGGING = """\
    if step % 20 == 0:
        logger.info(f"step {step} of {len(dataloader)}: {model.calculate_metric(is_training=True)}")
"""
RECORDING = """\
    measured = model.calculate_metric(is_training=True)
    import json, os, pathlib
    with pathlib.Path(f"losses-{os.environ.get('RANK', '0')}.jsonl").open("a") as file:
        print(json.dumps(float(measured["loss"])), file=file)
"""


@dataclass(frozen=True)
class Run:
    folder: Path
    log: str

    def losses(self, rank: int = 0) -> list[float]:
        return [json.loads(line) for line in (self.folder / f"losses-{rank}.jsonl").read_text().splitlines()]


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"the script has changed: {old!r} comes {text.count(old)} times"
    return text.replace(old, new)


def run_script(name: str, folder: Path) -> Run:
    text = (COOKBOOK / name).read_text(encoding="utf-8")
    text = replaced(replaced(text, "range(1000)", ROWS), LOGGING, RECORDING)
    (folder / name).write_text(text, encoding="utf-8")
    (folder / "twinkle.toml").write_text((COOKBOOK / "twinkle.toml").read_text(encoding="utf-8"), encoding="utf-8")
    variables = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TWINKLE_HOME": str(folder / "home"),
        "TWINKLE_OFFLINE": "1",
    }
    done = subprocess.run([*LAUNCHERS[name], name], cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Run(folder, done.stderr)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_script("quickstart.py", tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_script("quickstart_torchrun.py", tmp_path_factory.mktemp("together"))


def test_the_loss_falls_on_every_batch(alone):
    losses = alone.losses()
    assert len(losses) == BATCHES
    for first, last in zip(losses[:PASS], losses[-PASS:], strict=True):
        assert last < first - 0.1


def test_placement_and_configuration_are_logged(alone):
    assert "cpu" in alone.log
    assert "AdamW" in alone.log


def test_the_checkpoint_loads_with_peft_alone(alone):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import twinkle.hub

    base = AutoModelForCausalLM.from_pretrained(twinkle.hub.download_model("tiny://models/twinkle-tiny-qwen3"))
    model = PeftModel.from_pretrained(base, alone.folder / CHECKPOINT)
    trained = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    assert len(trained) == 5 * 7  # layers, linear modules of each
    assert all(parameter.abs().max() > 0 for parameter in trained)


def test_two_processes_give_the_loss_curve_of_one(alone, together):
    assert together.losses() == pytest.approx(alone.losses(), abs=1e-5)


def test_every_rank_measures_the_same(together):
    assert together.losses(rank=1) == together.losses(rank=0)


def test_two_processes_end_with_the_weights_of_one(alone, together):
    from safetensors.numpy import load_file

    weights = [load_file(run.folder / CHECKPOINT / "adapter_model.safetensors") for run in (alone, together)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert value == pytest.approx(weights[1][name], abs=1e-4), name


def test_the_torchrun_script_is_the_other_one_with_one_line_more():
    one, two = ((COOKBOOK / name).read_text(encoding="utf-8").splitlines() for name in LAUNCHERS)
    added = [line for line in two if line not in one and not line.startswith("#")]
    assert added == [
        "import twinkle",
        "from twinkle import DeviceMesh, get_device_placement, get_logger",
        'twinkle.initialize(mode="local", global_device_mesh=DeviceMesh.from_sizes(dp_size=2))',
    ]
