"""An SFT LoRA step against a plain PyTorch + PEFT loop on the same batches.

A step is forward, loss, backward, clip and AdamW. Both sides start from the same weights and take turns, step by step. Sizes are
those of a small random Qwen3; what is printed are ratios of CPU time, and beside them those of wall time. With ``--peer-python``
the step of ``twinkle-kit`` is measured too, by a script that runs in its own environment.

    python benchmarks/sft_step.py [--json] [--steps 12] [--peer-python /path/to/its/python]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from report import Result, compare, print_results
from transformers import AutoModelForCausalLM, Qwen3Config

from twinkle.model import TransformersModel


@dataclass(frozen=True)
class Case:
    """One setting: a model's size and how much of each row is labelled."""

    name: str
    vocabulary: int
    labelled: float
    limit: float
    hidden: int = 384
    layers: int = 4
    rows: int = 4
    tokens: int = 128

    def config(self) -> Qwen3Config:
        return Qwen3Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=3 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.hidden // 64,
            num_key_value_heads=self.hidden // 128,
            head_dim=64,
            tie_word_embeddings=True,
            eos_token_id=1,
        )

    def batches(self, count: int) -> list[list[dict[str, Any]]]:
        """``count`` batches of rows whose last part is labelled. Rows differ in length, so there is padding."""
        generator = np.random.default_rng(0)
        made = []
        for _ in range(count):
            rows = []
            for place in range(self.rows):
                ids = generator.integers(2, self.vocabulary, self.tokens - 8 * place)
                labels = ids.copy()
                labels[: int(len(ids) * (1 - self.labelled))] = -100
                rows.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
            made.append(rows)
        return made


CASES = [
    Case("SFT LoRA step, every token labelled, vocabulary 4k", 4096, 1.0, 1.0),
    Case("SFT LoRA step, every token labelled, vocabulary 32k", 32768, 1.0, 1.0),
    Case("SFT LoRA step, half the tokens labelled, vocabulary 32k", 32768, 0.5, 0.75),
]

Step = Callable[[list[dict[str, Any]]], float]


def lora() -> LoraConfig:
    return LoraConfig(r=8, lora_alpha=32, target_modules="all-linear")


def ours(case: Case) -> Step:
    """Our step."""
    model = TransformersModel(config=case.config())
    model.add_adapter_to_model("default", lora())
    model.set_optimizer("AdamW", lr=1e-4)

    def step(rows: list[dict[str, Any]]) -> float:
        output = model.forward_backward(inputs=rows)
        model.clip_grad_and_step()
        return float(output["loss"])

    return step


def plain(case: Case) -> Step:
    """The step of a plain loop: collate, the model's own loss, backward, clip, AdamW."""
    torch.manual_seed(42)
    model = get_peft_model(AutoModelForCausalLM.from_config(case.config(), dtype=torch.float32), lora())
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def step(rows: list[dict[str, Any]]) -> float:
        loss = model(**collate(rows), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in rows)
    made = {
        name: torch.full((len(rows), width), filling)
        for name, filling in (("input_ids", 0), ("attention_mask", 0), ("labels", -100))
    }
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        made["input_ids"][place, :length] = torch.tensor(row["input_ids"])
        made["labels"][place, :length] = torch.tensor(row["labels"])
        made["attention_mask"][place, :length] = 1
    return made


def measure(case: Case, steps: int) -> tuple[Result, float]:
    """CPU time compared, and the ratio of wall times, the sides taking turns; checks that both compute the same loss."""
    sides = {"ours": ours(case), "theirs": plain(case)}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    for index, rows in enumerate(case.batches(steps + 2)):
        losses = []
        for name, step in sides.items() if index % 2 else reversed(sides.items()):
            began_cpu, began = time.process_time(), time.perf_counter()
            losses.append(step(rows))
            if index >= 2:  # the first two warm up
                cpu[name].append(time.process_time() - began_cpu)
                wall[name].append(time.perf_counter() - began)
        if index == 0 and abs(losses[0] - losses[1]) > 1e-4 * losses[1]:
            raise SystemExit(f"{case.name}: the sides don't compute the same loss: {losses}")
    return compare(case.name, cpu["ours"], cpu["theirs"], case.limit), statistics.median(wall["ours"]) / statistics.median(
        wall["theirs"]
    )


def measure_peer(case: Case, steps: int, python: str) -> Result:
    """Our step against twinkle-kit's, each in its own environment; so the two don't take turns by step, but one after the other."""
    script = Path(__file__).parent / "peers" / "twinkle_kit_sft.py"
    request = json.dumps({"config": case.config().to_dict(), "batches": case.batches(steps + 2), "warmup": 2})
    done = subprocess.run([python, str(script)], input=request, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"twinkle-kit's step failed:\n{done.stderr[-2000:]}")
    theirs = json.loads(done.stdout.strip().splitlines()[-1])["cpu"]
    step, times = ours(case), []
    for rows in case.batches(steps + 2):
        began = time.process_time()
        step(rows)
        times.append(time.process_time() - began)
    return compare(f"{case.name}, against twinkle-kit", times[2:], theirs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--steps", type=int, default=12, help="measured steps a side and case")
    parser.add_argument("--peer-python", help="the Python of an environment that has twinkle-kit")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured = [measure(case, options.steps) for case in CASES]
    results = [result for result, _ in measured]
    if options.peer_python:
        results += [measure_peer(case, options.steps, options.peer_python) for case in CASES[-1:]]
    if not options.json:
        print("Ratios of wall time, which other processes disturb:", ", ".join(f"{wall:.2f}" for _, wall in measured))
    return print_results(results, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
