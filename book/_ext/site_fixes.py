"""A Sphinx extension that leaves Thebe out of every page.

The theme loads Thebe, a way to run code in the page, wherever sphinx-thebe is installed. This book
does not use it, and the theme declares its constants twice, an error in the console of each page.
"""

from typing import Any

from sphinx.application import Sphinx


def leave_thebe_out(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Drop the scripts of Thebe from a page that is about to be written."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{getattr(script, 'filename', script)} {vars(script)}".lower()
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the fix; Sphinx calls this."""
    # After the theme, which adds its scripts at the default priority of 500.
    app.connect("html-page-context", leave_thebe_out, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
