"""twinkle-kit's SFT LoRA step, timed in its own environment: reads a request from standard input, prints one line of JSON.

The request holds a Qwen3 configuration, batches of rows and how many of them warm up. twinkle-kit has no CPU platform (it asks for
a CUDA device wherever it finds nothing else), so one is put in its place here; everything else runs as its users have it, with
its defaults, but in float32 as the other sides. (Its defaults recompute activations in the backward pass.)

An environment for it, with the versions that the other side has:

    python -m venv kit && kit/bin/pip install --no-deps twinkle-kit==0.5.1 pillow pyzmq
    kit/bin/pip install -c constraints.txt torch==2.13.0 transformers peft accelerate datasets numpy omegaconf fastapi modelscope
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, Qwen3Config
from twinkle.utils.platforms import Platform, gpu


def give_it_a_cpu() -> None:
    """Let twinkle-kit's fallback platform, which is CUDA's, answer with the CPU."""
    gpu.GPU.device_prefix = staticmethod(lambda *_: "cpu")
    gpu.GPU.get_local_device = staticmethod(lambda *_, **__: "cpu")
    gpu.GPU.device_backend = staticmethod(lambda *_, **__: "gloo")
    Platform.get_local_device = staticmethod(lambda *_, **__: "cpu")


def main() -> int:
    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    give_it_a_cpu()
    import twinkle
    from twinkle import DeviceMesh
    from twinkle.model import TransformersModel

    twinkle.initialize(mode="local", global_device_mesh=DeviceMesh.from_sizes(dp_size=1, device_type="cpu"))
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(42)
        config = Qwen3Config(**request["config"])
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
        model = TransformersModel(model_id=folder, mixed_precision="no", torch_dtype=torch.float32)
        model.add_adapter_to_model("default", LoraConfig(r=8, lora_alpha=32, target_modules="all-linear"))
        model.set_optimizer("AdamW", lr=1e-4)
        model.set_loss("CrossEntropyLoss")
        model.set_processor("InputProcessor")
        times, losses = [], []
        for batch in request["batches"]:
            began = time.process_time()
            output = model.forward_backward(inputs=rows_of(batch))
            model.clip_grad_and_step()
            losses.append(float(output["loss"]))
            times.append(time.process_time() - began)
    print(json.dumps({"cpu": times[request["warmup"] :], "losses": losses}))
    return 0


def rows_of(batch: list[dict]) -> list[dict]:
    """Rows in its format: with everything that its template would have put into them."""
    rows = []
    for row in batch:
        length = len(row["input_ids"])
        rows.append(
            {
                "input_ids": row["input_ids"],
                "labels": [*row["labels"][1:], -100],  # its rows carry labels that are shifted already
                "attention_mask": [1] * length,
                "position_ids": list(range(length)),
                "length": length,
            }
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
