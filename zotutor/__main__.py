"""The command ``zotutor``; also ``python -m zotutor``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say what it needs."""
    try:
        import typer  # noqa: F401
    except ImportError:
        sys.exit(
            "zotutor: the command needs typer, which is not installed; run: "
            'pip install "zotutor[llm]"'
        )
    from .cli import app

    app()


if __name__ == "__main__":
    main()
