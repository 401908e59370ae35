"""Executes every chapter and builds the site, strictly, into _build/html.

python tools/build_book.py

`make book` calls this; without make, run it with the Python that requirements.lock was installed
into. Every page is rebuilt each time, because an incremental build would not repeat the warnings
of unchanged pages, and a warning is an error here. That is cheap: the executed chapters, which take
long, are cached by their cells. The cache is dropped when zotutor, Python, an installed package or
what ``zotutor fetch`` brought changes, which the cells do not show.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
CACHE = BUILD / ".jupyter_cache"
HTML = BUILD / "html"
FINGERPRINT = BUILD / ".executed_with"

PROFILE = """\
c = get_config()
c.IPKernelApp.log_level = 40
# Drawings, sharp at any size, that a script may color for the dark theme.
c.InlineBackend.figure_formats = {"svg"}
c.InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "metadata": {"Date": None}}
"""

MEMORY = '''
def _peak_memory():
    """After each cell, write the most memory that this kernel has held, under what it has run."""
    import hashlib, json, os, pathlib, sys
    try:
        import resource
    except ImportError:  # Windows
        return
    shell = get_ipython()
    folder = pathlib.Path(os.environ["ZOTUTOR_MEMORY"])
    last = []

    def write(_):
        cells = shell.history_manager.input_hist_raw[1:]
        name = hashlib.sha256("\\0".join(cells).encode()).hexdigest()
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.json"
        path.write_text(json.dumps({"peak": peak}), encoding="utf-8")
        if last:
            last.pop().unlink(missing_ok=True)
        last.append(path)

    shell.events.register("post_run_cell", write)

_peak_memory()
del _peak_memory
'''


def check_jupyter_book() -> None:
    """Exit with advice unless Jupyter Book 1 is installed; version 2 is another program."""
    try:
        version = metadata.version("jupyter-book")
    except metadata.PackageNotFoundError:
        version = "none"
    if version.split(".")[0] != "1":
        sys.exit(
            f"This book needs jupyter-book 1.0.4.post1, and {sys.executable} has {version}.\n"
            "Run `make env`, or: pip install -r requirements.lock"
        )


def fetched() -> list[str]:
    """Which of the files that ``zotutor fetch`` brings are here."""
    from zotutor.llm import packages

    found = []
    for name in packages.SOURCES:
        with contextlib.suppress(FileNotFoundError):
            packages.find(name)
            found.append(name)
    return found


def fingerprint(package: Path = ROOT / "zotutor") -> str:
    """A hash of what chapters are executed with: zotutor, Python, packages and what is fetched."""

    def parts() -> Iterator[bytes]:
        yield platform.python_version().encode()
        yield platform.machine().encode()
        installed = {(d.name.lower(), d.version) for d in metadata.distributions()}
        yield repr(sorted(installed)).encode()
        yield repr(fetched()).encode()
        for path in sorted(package.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(package).as_posix().encode()
                yield path.read_bytes()

    digest = hashlib.sha256()
    for part in parts():
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def drop_stale_results() -> None:
    """Remove cached results that were computed with another zotutor, Python or package."""
    now = fingerprint()
    before = FINGERPRINT.read_text(encoding="utf-8") if FINGERPRINT.exists() else ""
    if now != before:
        if CACHE.exists():
            print("What chapters are executed with has changed: every chapter is executed again.")
            shutil.rmtree(CACHE)
        BUILD.mkdir(exist_ok=True)
        FINGERPRINT.write_text(now, encoding="utf-8")


def build() -> int:
    """Run Jupyter Book on an empty output folder; its exit code, 0 only without any warning."""
    # The first import of pyplot on a new machine reports on stderr that it lists the fonts; let it
    # happen here, since what a chapter writes to stderr fails the build.
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], check=True)
    shutil.rmtree(HTML, ignore_errors=True)
    # Kernels start from this profile instead of the reader's own, whose start-up files could change
    # results; theirs would also report, once a chapter, that they talk over the loopback interface.
    profile = BUILD / ".ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    profile.joinpath("ipython_kernel_config.py").write_text(PROFILE, encoding="utf-8")
    startup = profile / "startup"
    startup.mkdir(exist_ok=True)
    startup.joinpath("memory.py").write_text(MEMORY, encoding="utf-8")
    # A page has no kernel, so that its sliders would be dead: figures that have some show their
    # middle choices instead (zotutor/figures/style.py).
    environment = os.environ | {"IPYTHONDIR": str(profile.parent), "ZOTUTOR_STATIC": "1"}
    environment["ZOTUTOR_MEMORY"] = str(CACHE / "memory")
    command = "from jupyter_book.cli.main import main; main()"
    arguments = ["build", ".", "--all", "--warningiserror", "--keep-going"]
    result = subprocess.run(
        [sys.executable, "-c", command, *arguments], cwd=ROOT, env=environment, check=False
    )
    return result.returncode


def check_pages() -> int:
    """Look at the pages as written; the exit code of the checks, 0 if both have found nothing."""

    def run(name: str) -> int:
        command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), str(HTML)]
        return subprocess.run(command, check=False).returncode

    return run("check_pages") or run("check_answers")


def print_reports() -> None:
    """Print the traceback of every chapter that failed."""
    for report in sorted(HTML.joinpath("reports").rglob("*.err.log")):
        print(f"\n===== {report.name}\n{report.read_text(encoding='utf-8')}")


def main() -> int:
    """Build the book and say where it is."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    check_jupyter_book()
    start = time.monotonic()
    drop_stale_results()
    code = build() or check_pages()
    seconds = time.monotonic() - start
    index = HTML / "index.html"
    if code:
        print_reports()
        print(f"\nThe book was not built cleanly ({seconds:.0f} s): see the warnings above.")
        if index.exists():
            print(f"What could be built is at {index.as_uri()}")
        return 1
    print(f"\nThe book is built ({seconds:.0f} s). Open it at\n\n    {index.as_uri()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
