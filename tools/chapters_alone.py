"""Writes every reader's notebook, alone, into an empty folder, for a kernel with zotutor's wheel.

python tools/chapters_alone.py FOLDER

FOLDER then holds site/ (the unpacked wheel), chapters/NAME/NAME.ipynb, and jupyter/, a kernel that
finds zotutor in site/ and not in the source tree. With JUPYTER_PATH=FOLDER/jupyter in the
environment, `make test CHAPTERS=FOLDER/chapters` shows that each needs nothing else, as for a
reader who opens one in Colab and runs all of it. (`make book` executes the chapters themselves,
with the code of their solutions.) PyTorch and the rest are those of the running Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from reader_notebooks import reader_notebooks

ROOT = Path(__file__).resolve().parent.parent


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this package into a folder; its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    subprocess.run([*command, str(folder)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def write_kernel(folder: Path, site: Path) -> None:
    """Write a kernel named python3, as the chapters ask for, that imports from site first."""
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    specification = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
        "env": {"PYTHONPATH": os.fspath(site)},
    }
    kernel.joinpath("kernel.json").write_text(json.dumps(specification), encoding="utf-8")


def main() -> int:
    """Fill the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("Usage: python tools/chapters_alone.py FOLDER")
    folder = Path(sys.argv[1]).resolve()
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty. Name an empty or a new folder.")
    wheel = build_wheel(folder / "wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    write_kernel(folder / "jupyter", folder / "site")
    for page, text in reader_notebooks(ROOT).items():
        name = Path(page).name
        alone = folder / "chapters" / name
        alone.mkdir(parents=True)
        alone.joinpath(f"{name}.ipynb").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
