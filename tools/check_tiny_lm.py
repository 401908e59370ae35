"""Checks that the task of the language model that ships is unsolved, but learnable.

    python tools/check_tiny_lm.py                 # a few minutes on two cores

Prints test accuracy zero-shot, with the best threshold on the two words' logit difference (found
on the training reviews), after AdamW, after ZO-SGD (P = 1 and 8, several seeds, with seconds), and
after ZO-SGD and AdamW from random weights; then the limits, each met or not. The exit status is 1
if one is not.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

import zotutor as zo
from zotutor.llm.reviews import LABEL_WORDS, PROMPT, examples

FOLDER = Path(__file__).parents[1] / "zotutor" / "llm" / "tiny"
BATCH = 32
ZO = {1: (500, 1e-4), 8: (60, 1e-3)}
"""Steps and learning rate of ZO-SGD for each P; eps is the default, 1e-3."""
ADAMW = (200, 3e-4)
"""Steps and learning rate of AdamW."""


class Prompts(NamedTuple):
    """Token ids (N, T) padded on the left, their mask, and labels (N,)."""

    ids: Tensor
    mask: Tensor
    labels: Tensor

    def take(self, indices: Tensor) -> Prompts:
        """The prompts at these indices, without the columns that are padding in all of them."""
        longest = int(self.mask[indices].sum(1).max())
        ids, mask = self.ids[indices], self.mask[indices]
        return Prompts(ids[:, -longest:], mask[:, -longest:], self.labels[indices])


def prompts(tokenizer: Any, split: str) -> Prompts:
    """The prompts of a split."""
    reviews = examples(split)
    found = tokenizer(
        [PROMPT.format(text=review.text) for review in reviews], return_tensors="pt", padding=True
    )
    labels = torch.tensor([review.label for review in reviews])
    return Prompts(found["input_ids"], found["attention_mask"], labels)


class Measured:
    """A folder's model, and what is to be measured on it."""

    def __init__(self, folder: Path) -> None:
        """Read the tokenizer and encode the reviews."""
        self.folder = folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.words = self.tokenizer.convert_tokens_to_ids(list(LABEL_WORDS))
        self.train, self.test = prompts(self.tokenizer, "train"), prompts(self.tokenizer, "test")

    def load(self, random_seed: int | None = None) -> Any:
        """The pretrained model, or one of the same shape with random weights."""
        model = AutoModelForCausalLM.from_pretrained(self.folder, local_files_only=True)
        if random_seed is not None:
            torch.manual_seed(random_seed)
            model = type(model)(model.config)
        return model.eval()

    def logits(self, model: Any, batch: Prompts) -> Tensor:
        """Logits of the label words at the last position, (N, 2)."""
        out = model(
            input_ids=batch.ids, attention_mask=batch.mask, logits_to_keep=1, use_cache=False
        )
        return out.logits[:, -1, self.words]

    @torch.no_grad()
    def accuracy(self, model: Any) -> float:
        """Share of test reviews called right."""
        return (self.logits(model, self.test).argmax(1) == self.test.labels).double().mean().item()

    @torch.no_grad()
    def best_threshold(self, model: Any) -> float:
        """Test accuracy with the threshold on z_great - z_terrible that is best in training."""
        difference, sought = (
            z[:, 1] - z[:, 0]
            for z in (self.logits(model, self.train), self.logits(model, self.test))
        )
        right = (difference[None, :] > difference[:, None]) == (self.train.labels == 1)
        threshold = difference[right.sum(1).argmax()]
        return ((sought > threshold) == (self.test.labels == 1)).double().mean().item()

    def tune(self, model: Any, optimizer: Any, steps: int, seed: int) -> float:
        """Fine-tune on the label words' cross-entropy; the seconds it took."""
        generator = torch.Generator().manual_seed(seed)
        began = time.perf_counter()
        for _ in range(steps):
            indices = torch.randint(len(self.train.labels), (BATCH,), generator=generator)
            batch = self.train.take(indices)

            def loss(batch: Prompts = batch) -> Tensor:
                return functional.cross_entropy(self.logits(model, batch), batch.labels)

            if isinstance(optimizer, zo.ZOSGD):
                optimizer.step(loss)
            else:
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
        return time.perf_counter() - began

    def zeroth_order(self, P: int, seed: int, *, random: bool = False) -> tuple[float, float]:
        """Test accuracy after ZO-SGD, and the seconds it took."""
        steps, lr = ZO[P]
        model = self.load(seed if random else None)
        optimizer = zo.ZOSGD(model.named_parameters(), lr, P=P, seed=seed)
        seconds = self.tune(model, optimizer, steps, seed)
        return self.accuracy(model), seconds

    def adamw(self, seed: int, *, random: bool = False) -> tuple[float, float]:
        """Test accuracy after AdamW, and the seconds it took."""
        steps, lr = ADAMW
        model = self.load(seed if random else None)
        seconds = self.tune(model, torch.optim.AdamW(model.parameters(), lr), steps, seed)
        return self.accuracy(model), seconds


def main() -> int:
    """Print the table and the limits."""
    parser = argparse.ArgumentParser(description="Measure the language model that ships.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the model's folder")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--threads", type=int, default=2, help="threads that torch may use")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measured, seeds = Measured(arguments.folder), range(arguments.seeds)

    def runs(name: str, found: list[tuple[float, float]]) -> list[tuple[float, float]]:
        values = ", ".join(f"{100 * value:.1f} % in {seconds:.0f} s" for value, seconds in found)
        print(f"{name}: {values}", flush=True)
        return found

    pretrained = measured.load()
    zero_shot = measured.accuracy(pretrained)
    print(f"test reviews: {len(measured.test.labels)}, batch {BATCH}, torch {torch.__version__}")
    print(f"zero-shot: {100 * zero_shot:.1f} %")
    print(
        f"zero-shot, best threshold: {100 * measured.best_threshold(pretrained):.1f} %", flush=True
    )
    steps, lr = ADAMW
    first = runs(f"AdamW, {steps} steps, lr {lr}", [measured.adamw(seed) for seed in seeds])
    second, chance = [], []
    for P, (steps, lr) in ZO.items():
        name = f"ZO-SGD, P = {P}, {steps} steps, lr {lr}"
        second += runs(name, [measured.zeroth_order(P, seed) for seed in seeds])
        chance += runs(
            f"{name}, from random weights",
            [measured.zeroth_order(P, seed, random=True) for seed in seeds],
        )
    runs("AdamW, from random weights", [measured.adamw(seed, random=True) for seed in seeds])

    best = sum(value for value, _ in first) / len(first)
    closed = min((value - zero_shot) / (best - zero_shot) for value, _ in second)
    without = max((value - zero_shot) / (best - zero_shot) for value, _ in chance)
    slowest = max(seconds for _, seconds in second)
    limits = {
        "zero-shot within 55 and 85 %": 0.55 <= zero_shot <= 0.85,
        "AdamW at least 97 %": min(value for value, _ in first) >= 0.97,
        f"ZO closes at least 90 % of the gap ({100 * closed:.0f} %)": closed >= 0.9,
        f"from random weights it does not ({100 * without:.0f} %)": without < 0.5,
        f"in at most 60 s ({slowest:.0f} s)": slowest <= 60,
    }
    for name, met in limits.items():
        print(f"{'met' if met else 'NOT MET'}: {name}")
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
