"""The options of the command ``zotutor``, with their help; shared by its subcommands."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .llm import tasks


class Dtype(StrEnum):
    """How weights are stored."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Kind(StrEnum):
    """The head of the model."""

    causal = "causal"
    classifier = "classifier"


class Split(StrEnum):
    """What several processes share."""

    directions = "directions"
    batch = "batch"


class Adapter(StrEnum):
    """What is trained in place of the model's own weights."""

    lora = "lora"
    prefix = "prefix"
    prompt = "prompt"


class Quantize(StrEnum):
    """How frozen weights are stored."""

    bits_8 = "8bit"
    bits_4 = "4bit"


class Objective(StrEnum):
    """What a step measures and lowers."""

    loss = "loss"
    accuracy = "accuracy"
    f1 = "f1"


class Schedule(StrEnum):
    """How the learning rate changes over the steps."""

    constant = "constant"
    linear = "linear"


# ---- the model and its task ----------------------------------------------------------------------

Model = Annotated[
    str,
    typer.Option(
        help='"tiny" (ships with the package), a folder in the format of save_pretrained, or a '
        "name on the Hugging Face hub, with --revision.",
        show_default=False,
    ),
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
DataRevision = Annotated[
    str | None, typer.Option(help="Commit hash of a data set on the hub.", show_default=False)
]
Length = Annotated[
    int | None,
    typer.Option(help="Truncate prompts to this many tokens.", show_default="no truncation"),
]
Seed = Annotated[int, typer.Option(help="Of directions, batches and shots.")]
Family = Annotated[
    str,
    typer.Option(help="rademacher, gaussian, uniform, sphere, sparse:DENSITY or lowrank:RANK."),
]

QuantizeOption = Annotated[
    Quantize | None,
    typer.Option(
        help="Quantize frozen weights to this many bits, with bitsandbytes.",
        show_default="as given by --dtype",
    ),
]

# ---- finetune ------------------------------------------------------------------------------------

Steps = Annotated[int, typer.Option(help="How many steps.", show_default=False)]
LearningRate = Annotated[
    str,
    typer.Option(
        help="Learning rate, or auto: a quarter of that at which the run is predicted to diverge, "
        "measured in 100 to 200 forward passes of a few prompts."
    ),
]
Output = Annotated[
    Path, typer.Option(help="Folder of the run; a new one, or its own.", show_default=False)
]
Perturbations = Annotated[int, typer.Option("--P", "-P", help="Perturbations per step.")]
Eps = Annotated[
    float | None,
    typer.Option(help="Finite-difference step.", show_default="1e-3, in bfloat16 1e-2"),
]
ScheduleOption = Annotated[Schedule, typer.Option(help="Learning rate: constant, or falling to 0.")]
AdapterOption = Annotated[
    Adapter | None,
    typer.Option(help="Train an adapter of peft, and no other weight.", show_default="none"),
]
Rank = Annotated[int, typer.Option(help="Of --adapter lora.")]
VirtualTokens = Annotated[int, typer.Option(help="Of --adapter prefix and --adapter prompt.")]
ObjectiveOption = Annotated[
    Objective,
    typer.Option(
        help="What a step measures and lowers: the cross-entropy, 1 - accuracy of the batch, or "
        "1 - its macro F1. The last two need a larger --eps."
    ),
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        help="Prompts per forward pass, if a batch does not fit into memory.",
        show_default="all of them",
    ),
]
Momentum = Annotated[float, typer.Option(help="In [0, 1); keeps a second model in memory.")]
WeightDecay = Annotated[float, typer.Option(help="As in SGD.")]
BatchSize = Annotated[int, typer.Option(help="Prompts per step.")]
Shots = Annotated[
    int | None,
    typer.Option(help="Train on this many examples of each label.", show_default="all"),
]
EvaluateEvery = Annotated[
    int | None,
    typer.Option(help="Steps between evaluations.", show_default="start and end only"),
]
Dev = Annotated[
    int | None, typer.Option(help="Evaluate on this many examples.", show_default="all")
]
Save = Annotated[
    bool, typer.Option("--save", help="Write the tuned weights, or adapter, to OUTPUT/weights.")
]
HashEvery = Annotated[
    int, typer.Option(help="Steps between two hashes of the weights in the ledger.")
]
SealEvery = Annotated[
    int | None, typer.Option(hidden=True, help="Name of --hash-every in version 0.1.")
]
SplitOption = Annotated[
    Split, typer.Option(help="What processes share: the P perturbations, or the batch.")
]
Timeout = Annotated[float, typer.Option(help="Seconds that processes wait for each other.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No bar, no summary.")]

# ---- plan and doctor -----------------------------------------------------------------------------

StepsPlanned = Annotated[
    int | None, typer.Option("--steps", help="Steps of the run.", show_default=False)
]
Budget = Annotated[
    int | None,
    typer.Option(help="Forward passes of the run, in place of --steps.", show_default="20000"),
]
SamplesPlanned = Annotated[
    int | None,
    typer.Option(
        "--samples",
        help="Random directions to measure, at five losses each.",
        show_default="32, or 8 above 50 million parameters",
    ),
]
ErrorMoved = Annotated[
    float | None, typer.Option("--error", hidden=True, help="Now of zotutor perturbations.")
]
InputsMoved = Annotated[
    int | None, typer.Option("--inputs", hidden=True, help="Now of zotutor perturbations.")
]
KernelMoved = Annotated[
    bool, typer.Option("--kernel", hidden=True, help="Now of zotutor perturbations.")
]
FirstOrder = Annotated[
    bool,
    typer.Option("--adamw", help="Also take 20 steps of AdamW, by backpropagation, on a copy."),
]
StepsDoctor = Annotated[int, typer.Option("--steps", help="Steps of the run in question.")]

# ---- perturbations -------------------------------------------------------------------------------

Error = Annotated[float, typer.Option(help="The relative error wanted.")]
Inputs = Annotated[
    int, typer.Option(help="Number of examples to look at, of train and of dev each.")
]
Samples = Annotated[
    int,
    typer.Option(help="Random signs to draw where an exact answer costs too much."),
]
Kernel = Annotated[
    bool, typer.Option("--kernel", help="Plan for the kernel, not the log-probabilities.")
]

# ---- replay and info -----------------------------------------------------------------------------

Sources = Annotated[
    list[str] | None,
    typer.Argument(help="smollm2, snippets.", show_default="both", metavar="[NAME]..."),
]
Run = Annotated[Path, typer.Argument(help="Folder of a run, or a ledger.", show_default=False)]
SaveTo = Annotated[
    Path | None,
    typer.Option(help="Write the tuned weights to this new folder.", show_default=False),
]
StepsReplayed = Annotated[
    int | None, typer.Option(help="Replay only this many steps.", show_default="all")
]
DtypeReplayed = Annotated[
    Dtype | None, typer.Option(help="How weights are stored.", show_default="the ledger's")
]
Labels = Annotated[int, typer.Option(help="Classes of a classifier.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")]
