"""Fine-tune a language model with forward passes only."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import nn

from zotutor.checks import check_integer, check_path, check_real
from zotutor.directions import Directions
from zotutor.estimators import default_eps
from zotutor.optim import ZOSGD
from zotutor.probe import NonFiniteLossError
from zotutor.run_planning import Plan

from .adapters import describe, is_adapted
from .devices import check_held, first_device
from .evaluation import check_labels, right_answers, shared, texts_of
from .learning_rate import agreed, plan_run, reason
from .lm import Kind
from .objectives import WIDTH, CrossEntropy, Generated, Named, Objective, OfLogits, named
from .preparing import Prepared, prepare
from .quantized import check_trainable, keep_layout, rounds_activations
from .runs.files import LEDGER, examples_hash, read_config
from .runs.folder import Folder, Memory
from .runs.interrupts import uninterrupted
from .runs.ledger import Step
from .runs.ranks import Ranks
from .runs.replay import header_of
from .stepping import Batches, FirstOrder, Stepper, ZerothOrder
from .tasks import Accuracy, Example, Task
from .watching import Watch

Method = Literal["zo", "sgd", "adamw"]
Schedule = Literal["constant", "linear"]


class Run(NamedTuple):
    """The result of a fine-tuning run; the model itself was trained in place."""

    zero_shot: Accuracy
    accuracy: Accuracy
    losses: list[float]
    evaluations: list[tuple[int, Accuracy]]
    seconds: float
    """Duration of this call, including evaluations and replayed steps."""
    tokens: int
    """Tokens in the steps measured by this call: 0 if the run was finished before."""
    about: str = ""
    """How the model was scored (as a causal model or a classifier), and its batches padded."""
    plan: Plan | None = None
    """What was measured to choose the learning rate, if none was given."""

    def plot(self) -> Any:
        """The curves of loss and accuracy, a figure of Matplotlib."""
        return curves(self.losses, self.evaluations)


def curves(losses: list[float], evaluations: list[tuple[int, Accuracy]]) -> Any:
    """The figure of a run; Matplotlib is imported only here."""
    figures: Any = import_module("zotutor.figures")
    return figures.run_curves(losses, evaluations)


def finetune(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    *,
    steps: int,
    lr: float | None = None,
    schedule: Schedule = "constant",
    P: int = 1,
    eps: float | None = None,
    directions: Directions | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    method: Method = "zo",
    objective: Named | OfLogits | Generated = "loss",
    batch_size: int = 16,
    micro_batch: int | None = None,
    length: int | None = None,
    kind: Kind | None = None,
    evaluate_every: int | None = None,
    dev: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    save: bool = False,
    hash_every: int = 100,
    ranks: Ranks | None = None,
    progress: bool = True,
    seal_every: int | None = None,
) -> Run:
    """Fine-tune a language model on a prompted task, by default from forward passes only.

    The loss of a batch is the cross-entropy over the label words' logits after the prompt, as in
    MeZO. Batches are drawn with replacement by ``seed``. With LowRank directions both signs and all
    P perturbations of a step share one batched forward.

    With ``output`` the run is written to a folder as it proceeds: the numbers of each step before
    the step is taken. If it is interrupted, killed or out of disk space, the same call resumes it
    from the base model, and the result is bit for bit that of an uninterrupted run. For a finished
    run the same call restores the tuned model from the ledger (:func:`~zotutor.llm.replay`).

    Args:
        model: a causal language model or classifier, in eval mode; trained in place.
        tokenizer: its tokenizer.
        task: from :func:`~zotutor.llm.task`.
        steps: how many, at least 1.
        lr: learning rate; None (method "zo" only) takes a quarter of that at which the run is
            predicted to diverge, see :func:`~zotutor.llm.plan`: measured on the model in 100 to 200
            forward passes of a few prompts, and on resuming the one that the run recorded.
        schedule: "constant", or "linear" for lr (1 - step / steps).
        P: number of perturbations per step (method "zo").
        eps: finite-difference step; by default 1e-3, in bfloat16 1e-2 and in float64 1e-5, for the
            coarsest dtype used in computing the loss, including frozen weights and autocast; 1e-2
            for a base whose activations are rounded to 8 bits.
        directions: family of u; Rademacher by default.
        momentum: as in :class:`~zotutor.ZOSGD` and ``torch.optim.SGD``.
        weight_decay: as in :class:`~zotutor.ZOSGD` and torch's optimizers.
        method: "zo" for :class:`~zotutor.ZOSGD`; "sgd" or "adamw" for backpropagation.
        objective: what a step measures and lowers: "loss", the cross-entropy; "accuracy", 1 - that
            of the batch; "f1", 1 - its macro F1; a function of logits (N, V) over the label words
            and labels (N,) that returns a number; or :class:`~zotutor.llm.Generated`, a score of
            text. Its values are the losses of the run. What jumps needs a larger eps (by default
            1e-2), larger batches, and more perturbations.
        batch_size: prompts per step.
        micro_batch: prompts per forward pass, for batches that do not fit into memory; None for
            all. The results are the same up to the rounding of each prompt's logits, so that a run
            may resume with another value.
        length: truncate prompts to this many tokens.
        kind: "causal" or "classifier"; by default inferred from the model's output, see
            :func:`~zotutor.llm.evaluate`.
        evaluate_every: steps between evaluations on dev; None for the start and the end only.
        dev: how many dev examples to evaluate on; None for all.
        seed: of directions and batches.
        output: folder for the run's ledger, configuration and metrics; None to write nothing.
        save: also write the tuned weights to that folder, for ``from_pretrained``.
        hash_every: steps between two hashes of the weights in the ledger.
        ranks: the processes that share the run, :meth:`~zotutor.llm.Ranks.join`; None for one.
        seal_every: deprecated name of ``hash_every``.
        progress: show a bar with loss, accuracy, tokens per second and the time left.

    Returns:
        The zero-shot accuracy and the final one, losses, evaluations, seconds, tokens seen, and how
        the model was scored.

    Raises:
        TypeError, ValueError: for arguments out of range; a model whose logits for a prompt depend
            on the other prompts in its batch; a folder that holds something else or is being
            written to by another process; a damaged ledger. Nothing is changed in these cases.
        NonFiniteLossError: if a loss is NaN or infinite; the weights are those of the last good
            step, and the message names the step and what to try.
        KeyboardInterrupt: if interrupted; the weights are those of the last whole step.
        RunStoppedError: if ``output`` can no longer be written to, or a rank was lost.

    References:
        Malladi et al. (2023), MeZO.
    """
    if seal_every is not None:
        warnings.warn("seal_every: renamed to hash_every", DeprecationWarning, stacklevel=2)
        hash_every = seal_every
    options = Options.checked(
        steps=steps,
        lr=_without(lr, method),
        schedule=schedule,
        batch_size=batch_size,
        length=length,
        evaluate_every=evaluate_every,
        dev=dev,
        hash_every=hash_every,
        seed=seed,
    )
    _check_method(method, model, output=output, save=save)
    lowered = _objective(objective, method)
    if lr is None and objective != "loss":
        raise ValueError(
            "lr: given None for an objective that is no loss, whose curvature cannot be measured; "
            "give lr"
        )
    if micro_batch is not None:
        micro_batch = check_integer("micro_batch", micro_batch, low=1)
    check_trainable(model)
    check_held(model)
    keep_layout(model)
    evaluated = task.dev[: options.dev]
    _check_examples(task.train, evaluated, task.words)
    texts = texts_of([*task.train, *evaluated])
    generated = lowered if isinstance(lowered, Generated) else None
    words = None if generated else task.words
    prepared = prepare(model, tokenizer, words, texts, length=options.length, kind=kind)
    train = prepared.prompts.ids(texts_of(task.train))
    if generated:
        longest = max(map(len, prepared.prompts.ids(texts)))
        generated.prepare(model, tokenizer, task.words, longest)
    # `ZOSGD` checks the rest; until the first step is measured, no weight and no file changes
    rates = {"lr": options.lr, "momentum": momentum, "weight_decay": weight_decay}
    if method == "zo":
        own: dict[str, Any] = {"P": P, "eps": eps, "directions": directions, "seed": options.seed}
        optimizer = _optimizer(prepared, lowered, own | rates)
        stepper: Stepper = ZerothOrder(prepared.rows, optimizer, lowered, micro_batch=micro_batch)
    else:
        stepper = FirstOrder(prepared.rows, method, **rates, micro_batch=micro_batch)
    ranks = ranks or Ranks()
    ranks.check(stepper, options.batch_size)
    labels = [example.label for example in task.train]
    batches = Batches(train, labels, size=options.batch_size, seed=options.seed)
    planned = None
    if lr is None and isinstance(stepper, ZerothOrder):
        chosen = _chosen(
            prepared, (train, labels), stepper.optimizer, options, eps, output, ranks, progress
        )
        planned, rates["lr"] = chosen.plan, chosen.lr
        options = replace(options, lr=chosen.lr)
        optimizer = _optimizer(prepared, lowered, own | rates | {"eps": chosen.eps})
        stepper = ZerothOrder(prepared.rows, optimizer, lowered, micro_batch=micro_batch)
    session = _Session(prepared, evaluated, batches, stepper, options, ranks)
    folder = session.folder(task, output)
    begun = time.perf_counter()
    with folder, progress_bar(options.steps, progress and ranks.rank == 0) as bar:
        losses = session.run(folder, bar)
        evaluations = sorted(folder.evaluations.items())
        folder.finish(model, tokenizer, save=save)
    seconds = time.perf_counter() - begun
    first, last = evaluations[0][1], evaluations[-1][1]
    return Run(first, last, losses, evaluations, seconds, session.tokens, prepared.about, planned)


def _without(lr: float | None, method: str) -> float:
    """A learning rate; 0 in place of None, where one is to be measured."""
    if lr is None and method == "zo":
        return 0.0
    return check_real("lr", lr, low=0.0)  # type: ignore[arg-type]


class _Chosen(NamedTuple):
    """Of a run without a given learning rate."""

    lr: float
    eps: float | None
    plan: Plan | None


def _chosen(
    prepared: Prepared,
    train: tuple[Sequence[Sequence[int]], Sequence[int]],
    optimizer: ZOSGD,
    options: Options,
    eps: float | None,
    output: str | Path | None,
    ranks: Ranks,
    progress: bool,
) -> _Chosen:
    """The learning rate that a run in ``output`` recorded, or that of a plan."""
    folder = None if output is None else check_path("output", output)
    if folder is not None and (folder / LEDGER).is_file():
        recorded = read_config(folder)
        return _Chosen(recorded["lr"], recorded["eps"] if eps is None else eps, None)
    momentum = optimizer.param_groups[0]["momentum"]
    with progress_bar(1, progress and ranks.rank == 0, unit="loss") as bar:
        try:
            found = plan_run(
                prepared,
                *train,
                steps=options.steps,
                P=optimizer.P,
                batch_size=options.batch_size,
                directions=optimizer.directions,
                eps=optimizer.eps,
                enlarge=eps is None,
                seed=options.seed,
                progress=reporting(bar, "measuring a learning rate"),
            )
        except ValueError as error:
            error.add_note("No learning rate could be chosen; give lr.")
            raise
        if not bar.disable:
            bar.write(reason(found), file=bar.fp)
    # a step with momentum goes on for 1 / (1 - momentum) steps
    lr = float(f"{agreed(found.lr, ranks) * (1 - momentum):.2g}")
    return _Chosen(lr, agreed(found.eps, ranks), found)


@dataclass(frozen=True)
class Options:
    """What determines a run, except its model, task and optimizer; see :func:`finetune`."""

    steps: int
    lr: float
    schedule: Schedule
    batch_size: int
    length: int | None
    evaluate_every: int | None
    dev: int | None
    hash_every: int
    seed: int

    @classmethod
    def checked(cls, *, lr: float, schedule: Schedule, seed: int, **counts: Any) -> Options:
        """Options in their ranges.

        Raises:
            TypeError, ValueError: for those that are not.
        """
        optional = {"length", "evaluate_every", "dev"}  # may be None
        for name, count in counts.items():
            if count is not None or name not in optional:
                counts[name] = check_integer(name, count, low=1, high=1 << 63)
        if schedule not in get_args(Schedule):
            expected = ", ".join(get_args(Schedule))
            raise ValueError(f"schedule: given {schedule!r}, expected one of {expected}")
        lr = check_real("lr", lr, low=0.0)
        seed = check_integer("seed", seed, low=0, high=1 << 64)
        return cls(lr=lr, schedule=schedule, seed=seed, **counts)

    def rate(self, number: int) -> float:
        """The learning rate of a step."""
        return self.lr * (1 - number / self.steps) if self.schedule == "linear" else self.lr


def _objective(objective: Named | OfLogits | Generated, method: str) -> Objective:
    found = named(objective)
    if method != "zo" and objective != "loss":
        raise ValueError(
            f"objective: given {found.name!r} with method {method!r}, which needs a gradient; take "
            'method="zo"'
        )
    return found


def _optimizer(prepared: Prepared, lowered: Objective, options: dict[str, Any]) -> ZOSGD:
    if options["eps"] is None:  # ZOSGD's own default knows the trainable parameters' dtypes only
        smooth = isinstance(lowered, CrossEntropy) and not rounds_activations(prepared.rows)
        options["eps"] = max(default_eps(prepared.dtype), 0.0 if smooth else WIDTH)
    return ZOSGD(prepared.rows.parameters(), **options)


def _check_examples(train: Sequence[Example], dev: Sequence[Example], words: Sequence[str]) -> None:
    for name, part in (("train", train), ("dev", dev)):
        if not part or not all(text.strip() for text in texts_of(part)):
            raise ValueError(
                f"task: its {name} has no example or an empty prompt; give some, with words"
            )
        check_labels(part, words)


def _check_method(method: str, model: nn.Module, *, output: str | Path | None, save: bool) -> None:
    if method not in get_args(Method):
        expected = ", ".join(get_args(Method))
        raise ValueError(f"method: given {method!r}, expected one of {expected}")
    if output is None and save:
        raise ValueError("save: given without output, the folder to save to; give that as well")
    if output is not None and method != "zo":
        raise ValueError(
            f"output: given with method {method!r}, whose steps do not consist of a few numbers "
            "that a ledger could hold; leave it out, and save the model yourself"
        )
    if method == "zo" and model.training:
        raise ValueError(
            "model: given in training mode, whose dropout makes losses that cannot be compared; "
            "call model.eval() first"
        )


class _Session:
    """The steps of one call of :func:`finetune`: replayed from a folder, then measured."""

    def __init__(
        self,
        prepared: Prepared,
        evaluated: Sequence[Example],
        batches: Batches,
        stepper: Stepper,
        options: Options,
        ranks: Ranks,
    ) -> None:
        self.prepared, self.evaluated, self.batches = prepared, evaluated, batches
        self.stepper, self.options, self.ranks = stepper, options, ranks
        self.model = prepared.rows.model
        self.device = first_device(self.model)
        self.tokens, self.measuring = 0, 0.0
        self.watch: Watch | None = None
        if isinstance(stepper, ZerothOrder) and ranks.rank == 0:
            self.watch = Watch(eps=stepper.optimizer.eps, dtype=prepared.dtype)

    def folder(self, task: Task, output: str | Path | None) -> Memory:
        """The store of the run: its output folder, or memory."""
        if not isinstance(self.stepper, ZerothOrder) or (output is None and self.ranks.count == 1):
            return Memory()
        fixed = {"task": task.name, "examples": examples_hash(task), **vars(self.options)}
        del fixed["seed"]  # is in the header
        if self.stepper.objective.name != "loss":  # runs of version 0.1 have no such entry
            fixed["objective"] = self.stepper.objective.name
        fixed["seal_every"] = fixed.pop("hash_every")  # its name in version 0.1, whose runs resume
        optimizer = self.stepper.optimizer
        header, about = header_of(self.model, optimizer), _about(self.device, self.model)
        if self.stepper.micro_batch is not None:
            about["micro_batch"] = self.stepper.micro_batch

        adapted = self.model if is_adapted(self.model) else None

        def opened() -> Memory:
            if output is None:
                return Memory()
            return Folder(output, header, fixed, about, adapted=adapted)

        return self.ranks.begin(opened, header | fixed, optimizer)

    def run(self, folder: Memory, bar: Any) -> list[float]:
        """Take all steps, and evaluate between them; returns the losses."""
        losses, steps, every = [], self.options.steps, self.options.evaluate_every
        for number in range(steps + 1):
            due = number in (0, steps) or (every is not None and number % every == 0)
            # an earlier session may have evaluated here already
            if due and number not in folder.evaluations:
                found = shared(self._right, len(self.evaluated), self.ranks)
                folder.evaluated(number, found)
            if number == steps:
                break
            step = self._step(number, folder)
            losses.append(step.loss)
            latest = folder.evaluations[max(folder.evaluations)]
            speed = f", {self.tokens / self.measuring:.0f} tokens/s" if self.tokens else ""
            bar.set_postfix_str(f"loss {step.loss:.3f}, accuracy {latest}{speed}", refresh=False)
            bar.update()
        return losses

    def _right(self, rank: int, count: int) -> int:
        objective = getattr(self.stepper, "objective", None)
        return right_answers(
            self.prepared,
            self.evaluated,
            slice(rank, None, count),
            batch_size=min(64, self.stepper.micro_batch or 64),
            generated=objective if isinstance(objective, Generated) else None,
        )

    def _step(self, number: int, folder: Memory) -> Step:
        """Replay step ``number`` from the folder, or measure, record and take it."""
        past = number < len(folder.past)
        if past:  # replayed, without a forward pass
            step = folder.past[number]
            with uninterrupted():
                self.stepper.take(step.coefficients, lr=step.lr)
        else:
            step = self._measured(number, folder)
        due = (number + 1) % self.options.hash_every == 0 or number + 1 == self.options.steps
        # of the past, ranks compare weights once, at its end
        compare = number + 1 == len(folder.past) if past else due
        shared = compare and self.ranks.count > 1
        agreed = self.ranks.agreed_hash(self.model, number + 1) if shared else None
        folder.taken(step, self.model, hash_due=due, sha256=agreed)
        return step

    def _measured(self, number: int, folder: Memory) -> Step:
        since = time.perf_counter()
        tokens, labels = self.batches(number)  # (N, T), (N,)
        rate = self.options.rate(number)
        with _noted(number, self.options.steps, rate):
            on_device = tokens.to(self.device), labels.to(self.device)
            found = self.ranks.measure(self.stepper, *on_device)
            step = Step(number, self.options.seed, found.loss, rate, found.coefficients)
            with uninterrupted():  # recorded before it is taken, so that no step can be lost
                folder.write(step)
                self.stepper.take(step.coefficients, lr=rate)
        if self.watch is not None and (said := self.watch.saw(found.loss, found.coefficients)):
            warnings.warn(f"step {number}: {said}", RuntimeWarning, stacklevel=2)
        self.tokens += tokens.numel()
        self.measuring += time.perf_counter() - since
        return step


@contextmanager
def _noted(number: int, steps: int, lr: float) -> Iterator[None]:
    """Add to the error of a loss that is not finite the number of the step, and advice."""
    try:
        yield
    except NonFiniteLossError as error:
        error.add_note(
            f"This was step {number} of {steps}; the weights are those after {number} steps. Try a "
            f"smaller lr (it is {lr}), or bfloat16 in place of float16."
        )
        raise


def _about(device: torch.device, model: nn.Module) -> dict[str, Any]:
    try:
        ours = version("zotutor")
    except PackageNotFoundError:  # run from the source tree
        ours = "unknown"
    found = {"zotutor": ours, "torch": torch.__version__, "device": device.type}
    adapter = describe(model)
    return found if adapter is None else found | {"adapter": adapter}


def progress_bar(steps: int, progress: bool, *, unit: str = "step") -> Any:
    """A bar on standard error in a terminal, in a notebook on standard output."""
    from tqdm import tqdm

    notebook = type(sys.stdout).__module__.startswith(("ipykernel", "google.colab"))
    return tqdm(
        total=steps,
        disable=not progress,
        unit=unit,
        file=sys.stdout if notebook else sys.stderr,
    )


def reporting(bar: Any, title: str) -> Callable[[int, int], None]:
    """Let a bar show how many forward passes were made, and how many there will be."""

    def told(done: int, total: int) -> None:
        bar.total, bar.n = total, done
        bar.refresh()

    bar.set_description(title)
    return told
