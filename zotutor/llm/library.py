"""The transformers library: imported where it is needed, and quiet where it has nothing to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def transformers() -> Any:
    """The transformers library, or an error that says which extra to install."""
    try:
        import transformers as library
    except ImportError as error:
        raise ImportError(
            "language models need transformers, which is not installed; run: "
            'pip install "zotutor[llm]"'
        ) from error
    return library


@contextmanager
def quiet(library: Any, *, local: bool) -> Iterator[None]:
    """Silence the warning that a head is new, and progress bars of local files."""
    logging = library.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if local:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
