#!/bin/sh
# Creates or updates a virtual environment with the versions of requirements.lock and this package,
# editable. Called by the Makefile:  sh tools/make_env.sh PYTHON FOLDER
set -eu
venv=$2

python=
for candidate in "$1" python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "No Python 3.11 or newer was found (tried $1, python3.13, python3.12, python3.11, python)." >&2
    echo "Install one, or name it: make PYTHON=/path/to/python3.12 env" >&2
    exit 1
fi

# An environment whose interpreter is gone or too old (Python was upgraded or removed) is made again.
if ! "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Creating $venv with $("$python" --version)"
    if ! "$python" -m venv --clear "$venv"; then
        echo "Python could not create $venv. On Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    fi
fi

echo "Installing the versions of requirements.lock into $venv (some minutes the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.lock
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-deps --no-build-isolation --editable .
