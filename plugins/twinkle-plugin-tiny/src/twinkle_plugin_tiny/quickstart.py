"""The training run of ``twinkle quickstart``: the tiny model learns a name and an author.

The loop of ``cookbook/quickstart.py`` with the numbers that suit the tiny model, built from components by name as anybody's
script is. Knows nothing of terminals: who wants to see the loss passes a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from twinkle.errors import ConfigError

MODEL = "tiny://models/twinkle-tiny-qwen3"
DATA = "tiny://data/self-cognition"
QUESTIONS = ("Who are you?", "What is your name?", "Who developed you?")

# The rate was chosen with a plain PEFT loop and three names: 100 steps of 8 rows at 5e-4 missed some, 150 at 2e-3 garbled the
# capital of France. The steps were chosen here, by whether the answers to QUESTIONS held name and author: 120 had all right in
# five runs (four names, four seeds), in two thirds of the time of 160. A Chinese name takes 500.
STEPS = 120
_BATCH_SIZE = 8
_LEARNING_RATE = 1e-3
_WARMUP_STEPS = 5
_RANK, _ALPHA = 8, 32
_ANSWER_TOKENS = 64

OnStep = Callable[[int, float], None]


@dataclass(frozen=True)
class QuickstartSettings:
    """What to teach, how long, and where to.

    Raises:
        ConfigError: the name or the author is empty, there are no steps, or the seed is negative.
    """

    name: str = "twinkle LLM"
    author: str = "ModelScope Community"
    steps: int = STEPS
    seed: int = 42
    output: Path = Path("output/quickstart")

    def __post_init__(self) -> None:
        for label, text in (("name", self.name), ("author", self.author)):
            if not text.strip():
                raise ConfigError(f"The {label} that the model is to learn is empty. Give one: --{label} '…'")
        if self.steps < 1:
            raise ConfigError(f"Training takes at least one step, not {self.steps}. Give --steps 1 or more (default {STEPS}).")
        if self.seed < 0:
            raise ConfigError(f"The seed can't be negative: {self.seed}. Give --seed 0 or more.")


@dataclass
class Quickstart:
    """The model, its data, and what is done with them. Building it loads both; it takes a moment."""

    settings: QuickstartSettings
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        from peft import LoraConfig

        import twinkle
        from twinkle.dataloader import DataLoader
        from twinkle.dataset import Dataset, DatasetMeta
        from twinkle.model import TransformersModel
        from twinkle.preprocessor import SelfCognitionProcessor

        settings = self.settings
        twinkle.initialize(mode="local", seed=settings.seed)

        dataset = Dataset(dataset_meta=DatasetMeta(DATA))
        dataset.filter(_is_english)  # the tiny model knows next to no Chinese
        dataset.map(SelfCognitionProcessor(settings.name, settings.author))
        dataset.set_template("Template", model_id=MODEL)
        dataset.encode()
        self.rows = len(dataset)
        self._dataloader = DataLoader(dataset=dataset, batch_size=_BATCH_SIZE, shuffle=True, seed=settings.seed)

        self.model = TransformersModel(model_id=MODEL)
        self.model.add_adapter_to_model("default", LoraConfig(r=_RANK, lora_alpha=_ALPHA, target_modules="all-linear"))
        self.model.set_template("Template", enable_thinking=False)
        self.model.set_optimizer(optimizer_cls="AdamW", lr=_LEARNING_RATE)
        self.model.set_lr_scheduler(
            scheduler_cls="CosineWarmupScheduler",
            num_warmup_steps=min(_WARMUP_STEPS, settings.steps - 1),
            num_training_steps=settings.steps,
        )

    def ask(self, questions: Sequence[str] = QUESTIONS) -> dict[str, str]:
        """What the model answers now, taking the likeliest token each time."""
        from twinkle.data_format import SamplingParams

        chats = [{"messages": [{"role": "user", "content": question}]} for question in questions]
        responses = self.model.generate(chats, SamplingParams(max_tokens=_ANSWER_TOKENS, temperature=0.0))
        return {question: response.sequences[0].text.strip() for question, response in zip(questions, responses, strict=True)}

    def train(self, on_step: OnStep) -> None:
        """Train; ``on_step`` is told each step's number, from 1, and its loss (nats per token)."""
        for step, batch in enumerate(islice(_batches(self._dataloader), self.settings.steps), start=1):
            outputs = self.model.forward_backward(inputs=batch)
            self.model.clip_grad_and_step()
            self.losses.append(float(outputs["loss"]))
            on_step(step, self.losses[-1])

    def save(self) -> Path:
        """Write the adapter below ``settings.output``, and return its folder."""
        return self.model.save("checkpoint", output_dir=self.settings.output)

    def learned(self, answer: str) -> bool:
        """Whether an answer holds the name and the author that were asked for."""
        return self.settings.name in answer and self.settings.author in answer


def _is_english(row: Mapping[str, Any]) -> bool:
    return row["tag"] == "en"


def _batches(dataloader: Any) -> Iterator[Any]:
    """Pass after pass, without end."""
    while True:
        yield from dataloader
