"""Language models: load, prompt, and fine-tune with forward passes only.

Needs the extra ``llm``: pip install "zotutor[llm]".
"""

from .finetune import Run, evaluate, finetune
from .lm import Rows, encode, load, word_ids
from .tasks import Accuracy, Example, Task, task

__all__ = [
    "Accuracy",
    "Example",
    "Rows",
    "Run",
    "Task",
    "encode",
    "evaluate",
    "finetune",
    "load",
    "task",
    "word_ids",
]
