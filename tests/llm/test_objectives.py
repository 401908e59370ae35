"""Objectives that are no loss, and batches in pieces."""

from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from small import CAUSAL, network, save_model, toy_task, word_tokenizer
from torch import Tensor, nn

import zotutor as zo
from zotutor.llm import Example, Generated, Ranks, Task, finetune, load, replay, weights_hash
from zotutor.llm.objectives import FromLogits, error_rate, f1_loss, named
from zotutor.llm.rows import Rows
from zotutor.llm.stepping import FirstOrder, ZerothOrder

pytest.importorskip("transformers", reason="the extra `llm` is not installed")


def tuned(model: Any, output: Path | None = None, task: Task | None = None, **options: Any) -> Any:
    given: dict[str, Any] = {"steps": 3, "lr": 0.01, "batch_size": 6, "seed": 3, "progress": False}
    given |= {"tokenizer": word_tokenizer(), "task": task or toy_task()} | options
    return finetune(model, output=output, **given)


# ---- the values ---------------------------------------------------------------------------------


def naive_f1(guesses: list[int], labels: list[int]) -> float:
    """Macro F1 from precision and recall, counted."""
    found = []
    for label in sorted({*guesses, *labels}):
        right = sum(g == label == y for g, y in zip(guesses, labels, strict=True))
        guessed, given = guesses.count(label), labels.count(label)
        precision = right / guessed if guessed else 0.0
        recall = right / given if given else 0.0
        both = precision + recall
        found.append(2 * precision * recall / both if both else 0.0)
    return sum(found) / len(found)


def test_metrics_are_what_counting_gives() -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(9, 4, generator=generator)
        labels = torch.randint(4, (9,), generator=generator)
        guesses = logits.argmax(1).tolist()
        right = sum(g == y for g, y in zip(guesses, labels.tolist(), strict=True))
        assert float(error_rate(logits, labels)) == pytest.approx(1 - right / 9)
        assert float(f1_loss(logits, labels)) == pytest.approx(
            1 - naive_f1(guesses, labels.tolist())
        )


@pytest.mark.parametrize("objective", ["accuracy", "f1"])
def test_a_step_measures_the_metric(objective: Any) -> None:
    """The recorded value is the mean of the metric at theta +- eps u, computed by hand."""
    model = network(CAUSAL["rotary"])
    mirror = network(CAUSAL["rotary"])
    run = tuned(model, steps=1, objective=objective, eps=0.3, batch_size=16)
    values = []
    for sign in (1, -1):
        with zo.perturbed(mirror, sign * 0.3, seed=3, step=0), torch.no_grad():
            values.append(_metric_of_batch(mirror, objective))
    assert values[0] != values[1], "the example would show nothing"
    assert run.losses[0] == pytest.approx(sum(values) / 2)


def _metric_of_batch(model: Any, objective: str) -> float:
    from zotutor.llm.preparing import prepare
    from zotutor.llm.stepping import Batches

    task, tokenizer = toy_task(), word_tokenizer()
    texts, labels = [e.text for e in task.train], [e.label for e in task.train]
    prepared = prepare(network(CAUSAL["rotary"]), tokenizer, task.words, texts)
    tokens, given = Batches(prepared.prompts.ids(texts), labels, size=16, seed=3)(0)
    guesses = []
    for row in tokens:
        logits = model(input_ids=row[row >= 0][None]).logits[0, -1]
        guesses.append(int(logits[torch.tensor(prepared.rows.words)].argmax()))
    if objective == "f1":
        return 1 - naive_f1(guesses, given.tolist())
    return sum(g != y for g, y in zip(guesses, given.tolist(), strict=True)) / 16


def test_a_function_of_logits() -> None:
    """The cross-entropy, given as a function, is the loss; another function is another run."""

    def own(logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels)

    runs = [
        tuned(network(CAUSAL["rotary"]), objective=o, eps=1e-3)
        for o in ("loss", own, lambda z, y: 0.5 * own(z, y))
    ]
    assert runs[1].losses[0] == pytest.approx(runs[0].losses[0], rel=1e-6)
    # From then on a loss's last bit, 1e-7, is divided by eps and moves the weights by lr times that
    # (3e-4 of the loss with other kernels of the same product).
    assert runs[1].losses == pytest.approx(runs[0].losses, abs=2e-3)
    assert abs(runs[2].losses[-1] * 2 - runs[0].losses[-1]) > 1e-2
    assert runs[2].losses[0] == pytest.approx(runs[0].losses[0] / 2, rel=1e-6)


def test_what_an_objective_draws_is_the_same_for_all_probes_of_a_step() -> None:
    drawn: list[list[float]] = []

    def noisy(logits: Tensor, labels: Tensor) -> Tensor:
        noise = torch.rand(3)
        drawn.append(noise.tolist())
        return nn.functional.cross_entropy(logits, labels) + noise.mean()

    state = torch.get_rng_state()
    run = tuned(network(CAUSAL["rotary"]), objective=noisy, P=2, steps=3)
    assert torch.equal(torch.get_rng_state(), state)
    steps = [drawn[i] for i in sorted({drawn.index(d) for d in drawn})]
    assert len(steps) == 3, "one draw for each step, the same in all its probes"
    plain = tuned(network(CAUSAL["rotary"]), P=2, steps=3, eps=1e-2)
    assert run.losses[0] == pytest.approx(plain.losses[0] + sum(steps[0]) / 3, abs=1e-4)


def test_other_noise_is_refused() -> None:
    counter = iter(range(1000))
    with pytest.raises(ValueError, match=r"it returned .* at the same parameters"):
        tuned(network(CAUSAL["rotary"]), objective=lambda z, y: z.mean() + next(counter))


# ---- generated text -----------------------------------------------------------------------------


def answers() -> Task:
    one = Example("the film is bright . It was", 0)
    two = Example("a very dull film . It was", 1)
    return Task("answers", ("very good .", "so bad"), (one, two) * 4, (one, two))


def greedily(model: Any, ids: list[int], count: int) -> list[int]:
    """The library's own greedy generation of up to this many tokens, or to the end of text."""
    out = model.generate(
        torch.tensor([ids]), max_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=2
    )
    return out[0, len(ids) :].tolist()


@pytest.mark.parametrize("positions", ["rotary", "learned", "mask"])
def test_generated_text_is_what_the_library_generates(positions: str) -> None:
    """Padded in one batch, as the library generates it for each prompt alone."""
    from zotutor.llm.preparing import prepare

    model, tokenizer, task = network(CAUSAL[positions]), word_tokenizer(), answers()
    texts = [e.text for e in task.dev] + ["dull"]
    prepared = prepare(model, tokenizer, None, texts)
    objective = Generated(tokens=5)
    objective.prepare(model, tokenizer, task.words, 8)
    with torch.no_grad():
        found = objective.outputs(prepared.rows, prepared.prompts.batch(texts)).tolist()
    for row, text in zip(found, texts, strict=True):
        expected = greedily(model, tokenizer(text)["input_ids"], 5)
        expected = expected[: expected.index(2)] if 2 in expected else expected
        assert [n for n in row if n >= 0] == expected


def test_a_task_of_short_answers_is_learned(tmp_path: Path) -> None:
    """From scores of text alone, the share of words that agree; answers have several tokens.

    The mean score rises from 0.16 to 0.60 in 50 steps; lr from a sweep on this seed.
    """

    def overlap(text: str, answer: str) -> float:
        pairs = list(zip(text.split(), answer.split(), strict=False))
        return sum(a == b for a, b in pairs) / len(answer.split())

    objective = Generated(overlap, tokens=3)
    model = network(CAUSAL["rotary"])
    options: dict[str, Any] = {
        "steps": 50,
        "lr": 0.05,
        "eps": 0.1,
        "seed": 0,
        "P": 8,
        "batch_size": 8,
    }
    run = tuned(model, tmp_path / "run", answers(), objective=objective, **options)
    assert sum(run.losses[-10:]) < sum(run.losses[:10]) - 2
    again = network(CAUSAL["rotary"])
    assert replay(tmp_path / "run", again).sha256 == weights_hash(model)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "generated text, 3 tokens" in config["objective"]
    assert "scored by the text that it generates" in run.about


# ---- micro-batches ------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", ["rademacher", "lowrank:2"])
@pytest.mark.parametrize("size", [1, 4, 5])
def test_pieces_have_the_same_value(size: int, directions: str) -> None:
    """Equal to rounding: a loss is off by some 1e-7, a slope by that over eps."""
    family = zo.directions.from_name(directions)
    found = []
    for piece in (None, size):
        model = network(CAUSAL["learned"])
        options: dict[str, Any] = {"batch_size": 10, "eps": 1e-2, "directions": family}
        run = tuned(model, micro_batch=piece, **options)
        found.append((run.losses, [p.detach().clone() for p in model.parameters()]))
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


class Rowwise(nn.Module):
    """Logits by sums along each row: no kernel that depends on how many rows there are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Parameter(torch.randn(20, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table[tokens].sum(1)  # (N, T, V) -> (N, V)


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_pieces_give_the_same_bits_where_rows_do(size: int) -> None:
    """Each row is computed alone, and all rows are reduced at once: nothing is left to differ."""
    tokens, labels = torch.arange(28).reshape(7, 4) % 20, torch.arange(7) % 3
    found = []
    for piece in (None, size):
        model = Rowwise()
        optimizer = zo.ZOSGD(model.parameters(), 0.1, P=3, seed=0)
        stepper = ZerothOrder(model, optimizer, micro_batch=piece)  # type: ignore[arg-type]
        found.append(stepper.measure(tokens, labels))
    assert found[0] == found[1]


def test_gradients_of_pieces_add_up() -> None:
    """First order as well: rows weigh the same, whatever piece they are in."""
    tokens, labels = torch.arange(28).reshape(7, 4) % 20, torch.arange(7) % 3
    gradients, losses = [], []
    for piece in (None, 3):
        model = Rowwise()
        rates = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
        stepper = FirstOrder(model, "sgd", **rates, micro_batch=piece)  # type: ignore[arg-type]
        losses.append(stepper.measure(tokens, labels).loss)
        gradients.append(model.table.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert losses[0] == pytest.approx(losses[1])


def test_no_call_has_more_rows_than_a_micro_batch() -> None:
    model = network(CAUSAL["rotary"])
    seen: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    finetuning = import_module("zotutor.llm.finetuning")
    with pytest.MonkeyPatch.context() as patch:
        prepare = finetuning.prepare

        def prepared(*args: Any, **options: Any) -> Any:
            found = prepare(*args, **options)
            seen.clear()  # a model is tried on a few prompts first, together and alone
            return found

        patch.setattr(finetuning, "prepare", prepared)
        tuned(model, micro_batch=2, batch_size=7)
    assert max(seen) == 2


def test_a_run_resumes_with_smaller_pieces(tmp_path: Path) -> None:
    """After running out of memory, say."""
    tuned(network(CAUSAL["rotary"]), tmp_path / "run", steps=2)
    whole = tuned(network(CAUSAL["rotary"]), steps=4)
    rest = tuned(network(CAUSAL["rotary"]), tmp_path / "run", steps=4, micro_batch=2)
    assert rest.losses == pytest.approx(whole.losses, abs=1e-4)


# ---- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"objective": "rouge"}, "objective: given 'rouge', expected loss, accuracy, f1"),
        ({"objective": 3}, "objective: given a int, expected a name"),
        ({"objective": "f1", "method": "adamw"}, 'needs a gradient; take method="zo"'),
        ({"objective": lambda z, y: z}, r"returned shape \(6, 2\), expected one number"),
        ({"objective": lambda z, y: "0.5"}, "returned str, expected one number"),
        ({"objective": Generated(tokens=40)}, "more than the 34 that this model reads"),
        ({"micro_batch": 0}, "micro_batch: given 0, expected at least 1"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], says: str) -> None:
    model = network(CAUSAL["rotary"])
    before = weights_hash(model)
    with pytest.raises((TypeError, ValueError), match=says):
        tuned(model, **options)
    assert weights_hash(model) == before


def test_an_objective_that_is_no_mean_is_not_split_by_rows() -> None:
    model = Rows(network(CAUSAL["rotary"]))
    optimizer = zo.ZOSGD(model.parameters(), 0.1, seed=0)
    for objective, refused in (("loss", False), ("accuracy", False), ("f1", True)):
        stepper = ZerothOrder(model, optimizer, named(objective))  # type: ignore[arg-type]
        ranks = Ranks(0, 2, split="batch")
        if refused:
            with pytest.raises(ValueError, match="not known to be a mean over the rows"):
                ranks.check(stepper, 8)
        else:
            ranks.check(stepper, 8)


def test_another_objective_does_not_resume_a_run(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "base")
    tuned(load(folder)[0], tmp_path / "run", objective="accuracy")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["objective"] == "accuracy"
    with pytest.raises(ValueError, match="its objective is 'accuracy', and None was given"):
        tuned(load(folder)[0], tmp_path / "run", eps=1e-2)


def test_functions_have_names() -> None:
    assert isinstance(named(error_rate), FromLogits)
    assert named(error_rate).name == "error_rate"
    assert math.isclose(zo.llm.objectives.WIDTH, 1e-2)
