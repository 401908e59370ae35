#!/bin/sh
# Creates an environment with otter-grader on top of that of make env: it sees all packages of VENV,
# and has what otter-grader needs in addition, so that a reader's environment stays without it.
#     sh tools/make_course_env.sh VENV FOLDER
set -eu
venv=$(cd "$1" && pwd)
folder=$2
echo "Installing otter-grader into $folder"
"$venv/bin/python" -m venv --clear --without-pip "$folder"
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
own=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# addsitedir, and not a plain path, so that editable packages of VENV are found as well
echo "import site; site.addsitedir('$packages')" >"$own/below.pth"
"$venv/bin/python" -m pip --python "$folder/bin/python" install --quiet \
    --disable-pip-version-check --no-deps -r course/requirements.txt
