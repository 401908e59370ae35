"""The command ``zotutor``: fine-tune, plan, replay and look at runs from a shell."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer

from .checks import check_integer
from .directions import from_name
from .llm import lm, tasks
from .llm.finetune import finetune as run_finetune
from .llm.rows import prepare
from .llm.runs import files, ledger
from .llm.runs.disk import RunStoppedError
from .llm.runs.ranks import Ranks, place_among
from .llm.runs.replay import ledger_in
from .llm.runs.replay import replay as run_replay
from .llm.runs.weights import save_pretrained
from .planning import Plan, Progress, last_plan, refine
from .probe import NonFiniteLossError

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
  zotutor finetune --model tiny --task reviews --steps 500 --lr 1e-4 --output first
  zotutor info first
  zotutor replay first --model tiny --save tuned""",
    epilog=EXIT_CODES,
)


class Dtype(StrEnum):
    """How weights are stored."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Kind(StrEnum):
    """What stands on top of the model."""

    causal = "causal"
    classifier = "classifier"


class Split(StrEnum):
    """What several processes share."""

    directions = "directions"
    batch = "batch"


class Schedule(StrEnum):
    """How the learning rate goes over the steps."""

    constant = "constant"
    linear = "linear"


Model = Annotated[
    str,
    typer.Option(
        help='"tiny" (ships with the package), a folder in the format of save_pretrained, or a '
        "name on the Hugging Face hub, with --revision.",
        show_default=False,
    ),
]
TaskName = Annotated[
    str,
    typer.Option(
        help=f"One of {', '.join(tasks.FORMATS)}; reviews ships with the package.",
        show_default=False,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with train and dev as .tsv (a header, tabs) or .jsonl; without it, the task's "
        "own examples, which for all tasks but reviews come from the hub (--data-revision).",
        show_default=False,
    ),
]
Shots = Annotated[
    int | None, typer.Option(help="Train on so many examples of each label.", show_default="all")
]
Length = Annotated[
    int | None, typer.Option(help="Cut prompts to so many tokens.", show_default="no cut")
]
Seed = Annotated[int, typer.Option(help="Of directions, batches and shots.")]
Family = Annotated[
    str,
    typer.Option(help="rademacher, gaussian, sphere, sparse:DENSITY or lowrank:RANK."),
]
DtypeOption = Annotated[Dtype, typer.Option(help="How weights are stored.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]
KindOption = Annotated[
    Kind,
    typer.Option(help="A causal language model, or an encoder with a classification head."),
]
Revision = Annotated[
    str | None, typer.Option(help="Commit hash of a model on the hub.", show_default=False)
]
DataRevision = Annotated[
    str | None, typer.Option(help="Commit hash of a data set on the hub.", show_default=False)
]


@app.command(epilog=EXIT_CODES)
def finetune(
    model: Model,
    task: TaskName,
    steps: Annotated[int, typer.Option(help="How many steps.", show_default=False)],
    lr: Annotated[
        float,
        typer.Option(
            help="Learning rate; 1e-4 suits the tiny model, 1e-6 a large one in bfloat16.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder of the run; a new one, or its own.", show_default=False)
    ],
    data: Data = None,
    seed: Seed = 0,
    P: Annotated[
        int, typer.Option("--P", "-P", help="Perturbations a step; see zotutor plan.")
    ] = 1,
    directions: Family = "rademacher",
    eps: Annotated[
        float | None,
        typer.Option(help="Finite-difference step.", show_default="1e-3, in bfloat16 1e-2"),
    ] = None,
    schedule: Annotated[
        Schedule, typer.Option(help="Learning rate: constant, or falling to 0.")
    ] = Schedule.constant,
    momentum: Annotated[float, typer.Option(help="In [0, 1); keeps a second model.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="As in SGD.")] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Prompts a step.")] = 16,
    length: Length = None,
    shots: Shots = None,
    evaluate_every: Annotated[
        int | None,
        typer.Option(help="Steps between evaluations.", show_default="start and end only"),
    ] = None,
    dev: Annotated[
        int | None, typer.Option(help="Evaluate on so many examples.", show_default="all")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Write the tuned weights to OUTPUT/weights.")
    ] = False,
    hash_every: Annotated[
        int, typer.Option(help="Steps between two hashes of the weights in the ledger.")
    ] = 100,
    dtype: DtypeOption = Dtype.float32,
    device: Device = "cpu",
    kind: KindOption = Kind.causal,
    split: Annotated[
        Split, typer.Option(help="What processes share: the P perturbations, or the batch.")
    ] = Split.directions,
    timeout: Annotated[
        float, typer.Option(help="Seconds that processes wait for each other.")
    ] = 600.0,
    revision: Revision = None,
    data_revision: DataRevision = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No bar, no summary.")] = False,
) -> None:
    """Fine-tune a language model with forward passes only.

    Each step perturbs all weights along P random directions, and moves them by what the loss says.
    Those P numbers go to OUTPUT/ledger.bin before the step is taken: 48 bytes a step at P = 1. The
    same command again takes up a run that was stopped, from the base model and the ledger, and it
    ends in the same bits as if it had never been. More --steps go on with a finished run.

    OUTPUT holds config.json, ledger.bin, metrics.jsonl (loss and accuracy by step), plot.png and,
    with --save, weights, a folder for from_pretrained.

    Several processes or machines share a run if torchrun starts them, and send each other only the
    P numbers: torchrun --nproc-per-node 2 -m zotutor finetune ... --P 4. The first writes OUTPUT.
    """
    with _reported(output), Ranks.join(split=split.value, timeout=timeout, device=device) as ranks:
        family_, task_ = from_name(directions), _task(task, data, shots, seed, data_revision)
        device = ranks.device
        model_, tokenizer = _model(model, dtype, device, kind, len(task_.words), revision, seed)
        run = run_finetune(
            model_,
            tokenizer,
            task_,
            steps=steps,
            lr=lr,
            schedule=schedule.value,
            P=P,
            eps=eps,
            directions=family_,
            momentum=momentum,
            weight_decay=weight_decay,
            batch_size=batch_size,
            length=length,
            kind=kind.value,
            evaluate_every=evaluate_every,
            dev=dev,
            seed=seed,
            output=output,
            save=save,
            hash_every=hash_every,
            ranks=ranks,
            progress=sys.stderr.isatty() and not quiet,
        )
        if not quiet and ranks.rank == 0:
            before = "" if run.tokens else "was finished before; "
            reached = f"{steps} steps, accuracy {run.zero_shot} -> {run.accuracy}"
            sha256 = ledger.read(ledger_in(output)).hashes[-1].sha256.hex()
            _say(f"{output}: {before}{reached}\nweights: SHA-256 {sha256}")


@app.command()
def plan(
    model: Model,
    task: TaskName,
    data: Data = None,
    error: Annotated[float, typer.Option(help="The relative error wanted.")] = 0.5,
    inputs: Annotated[
        int, typer.Option(help="Number of examples to look at, of train and of dev each.")
    ] = 8,
    directions: Family = "rademacher",
    samples: Annotated[
        int,
        typer.Option(
            help="Random signs drawn where rows are too many to form; more are more exact."
        ),
    ] = 64,
    kernel: Annotated[
        bool, typer.Option("--kernel", help="Plan for the kernel, not the log-probabilities.")
    ] = False,
    length: Length = None,
    seed: Seed = 0,
    dtype: DtypeOption = Dtype.float32,
    device: Device = "cpu",
    kind: KindOption = Kind.causal,
    revision: Revision = None,
    data_revision: DataRevision = None,
) -> None:
    """How many perturbations P one step needs for a relative error.

    By the exact law: what a zeroth-order step does to the log-probabilities of dev examples differs
    from what a gradient step does by a factor that falls as 1 / sqrt(P). The noise of many small
    steps averages out as well, so that T steps at P = 1 with lr / T do what P = T does in one.
    """
    with _reported():
        check_integer("inputs", inputs, low=1)
        family_, task_ = from_name(directions), _task(task, data, None, seed, data_revision)
        model_, tokenizer = _model(model, dtype, device, kind, len(task_.words), revision, seed)
        observed, updated = (
            [e.text for e in part] for part in (task_.dev[:inputs], task_.train[:inputs])
        )
        scored, prompts, *_ = prepare(
            model_, tokenizer, task_.words, [*observed, *updated], length=length, kind=kind.value
        )
        x_o, x_u = prompts.batch(observed), prompts.batch(updated)
        y_u = (
            None if kernel else torch.tensor([e.label for e in task_.train[:inputs]], device=device)
        )
        options: dict[str, Any] = {"error": error, "samples": samples, "seed": seed}
        pieces = refine(scored, x_o, x_u, y_u, directions=family_, **options)
        print(_planned(pieces, bar=sys.stderr.isatty()))


def _planned(pieces: Iterator[Progress], *, bar: bool) -> Plan:
    """The last plan; a bar shows the one so far, and without a terminal a line the first."""
    from tqdm import tqdm

    found = None
    with tqdm(disable=not bar, file=sys.stderr, unit="row") as shown:
        for found in pieces:
            if found.plan is not None and not bar and found.done < found.total:
                so_far = f"{found.done} of {found.total}"
                print(f"zotutor: P is about {found.plan.P} ({so_far})", file=sys.stderr, flush=True)
                bar = True  # once
            shown.total, shown.n = found.total, found.done
            if found.plan is not None:
                shown.set_postfix_str(f"P is about {found.plan.P}", refresh=False)
            shown.refresh()
    return last_plan(found)


@app.command(short_help="The tuned weights again, from the base model and a ledger.")
def replay(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a ledger.", show_default=False)],
    model: Model,
    save: Annotated[
        Path | None,
        typer.Option(help="Write the tuned weights to this new folder.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Replay so many steps only.", show_default="all")
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="How weights are stored.", show_default="the ledger's")
    ] = None,
    device: Device = "cpu",
    kind: KindOption = Kind.causal,
    labels: Annotated[int, typer.Option(help="Classes of a classifier.")] = 2,
    revision: Revision = None,
) -> None:
    """From the base model and a ledger, the tuned weights, bit for bit.

    No data and no forward pass is needed, so a ledger of some kilobytes is enough to share a
    fine-tuned model with whoever has the base model. The hash that the run recorded is compared.
    """
    with _reported():
        place = ledger_in(run)
        header = ledger.read(place).header
        if save is not None:
            save = save.expanduser()
            _check_new(save)
        stored = dtype or _recorded(header["dtype"])
        seed = int(header["seed"])
        model_, tokenizer = _model(model, stored, device, kind, labels, revision, seed)
        found = run_replay(place, model_, steps=steps)
        print(f"{run}: {found.steps} steps replayed")
        if found.checked == found.steps:
            print(f"weights: SHA-256 {found.sha256}, as recorded")
        else:
            print(f"weights: SHA-256 {found.sha256}; a recorded hash was met at {found.checked}")
        if save is not None:
            save_pretrained(model_, tokenizer, save)
            print(f"saved to {save}")


@app.command(short_help="What a run is, and how far it has come.")
def info(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a ledger.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """What a run is, and how far it has come; its ledger is checked from end to end."""
    with _reported():
        found = files.summary(run)
        if as_json:
            print(json.dumps(found))
        else:
            for name, value in found.items():
                print(f"{name:>14}  {'' if value is None else value}")


def _say(text: str) -> None:
    """Print what the run's folder holds as well: nothing is lost if nobody reads it."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is not out yet


def _check_new(save: Path) -> None:
    """Refuse a folder that weights cannot be written to, or only over something else."""
    for path in (save, save.absolute().with_name(f"{save.name}.part")):
        if path.exists():
            raise ValueError(f"save: {path} is there already; choose a new folder, or remove it")
    above = next(path for path in save.absolute().parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(
            f"save: {save} cannot be written, since {above} is a file or closed to you; choose "
            "another folder, or change its permissions"
        )


def _task(
    name: str, data: Path | None, shots: int | None, seed: int, revision: str | None
) -> tasks.Task:
    return tasks.task(name, data, shots=shots, seed=seed, revision=revision)


def _recorded(dtype: str) -> Dtype:
    if dtype not in Dtype.__members__:
        raise ValueError(f"dtype: the ledger's is {dtype}; replay it in Python, where it was made")
    return Dtype(dtype)


def _model(
    name: str,
    dtype: Dtype,
    device: str,
    kind: Kind,
    labels: int,
    revision: str | None,
    seed: int,
) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: given {device!r}, which is not there ({reason})") from None
    return lm.load(
        name,
        dtype=getattr(torch, dtype.value),
        device=device,
        kind=kind.value,
        labels=labels,
        revision=revision,
        seed=seed,
    )


@contextmanager
def _reported(output: Path | None = None) -> Iterator[None]:
    """Turn errors that a user can do something about into one line and an exit code."""
    try:
        yield
    except BrokenPipeError:
        raise
    except RunStoppedError as error:
        _fail(3, error)
    except NonFiniteLossError as error:
        _fail(4, error)
    except (ValueError, TypeError, OSError, ImportError, NotImplementedError) as error:
        _fail(1, error)
    except (RuntimeError, MemoryError) as error:
        if not lm.is_out_of_memory(error):
            raise
        reason = (str(error) or "out of memory").splitlines()[0]
        _fail(3, error, f"{reason}; take a smaller --batch-size, or a larger machine")
    except KeyboardInterrupt as error:
        again = "" if output is None else "; the same command resumes the run"
        _fail(130, error, f"interrupted{again}")


def _fail(code: int, error: BaseException, message: str | None = None) -> NoReturn:
    notes = [] if message else getattr(error, "__notes__", [])
    text = " ".join(" ".join([message or str(error), *notes]).split())
    print(f"zotutor: {place_among()}{text}", file=sys.stderr)
    raise typer.Exit(code)
