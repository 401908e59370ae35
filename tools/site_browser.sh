#!/bin/sh
# Tests the built site in headless Chromium, or runs a script of tests/site there:
#     sh tools/site_browser.sh FOLDER [SCRIPT ARGUMENT...]
#     sh tools/site_browser.sh --prepare
# Node.js and Chromium are those of the machine; where they are missing on Debian or Ubuntu, and this
# runs as root (as on CI), they are installed. The driver and axe come from the npm registry, with
# the hashes of tests/site/package-lock.json. Exit status 3: something is missing and could not be
# installed, which one line says.
set -eu
cd "$(dirname "$0")/.."

cannot() {
    echo "The site cannot be tested here: $1" >&2
    exit 3
}

missing=
CHROMIUM=${CHROMIUM:-}
for candidate in chromium chromium-browser google-chrome google-chrome-stable; do
    [ -n "$CHROMIUM" ] || CHROMIUM=$(command -v "$candidate" || true)
done
[ -n "$CHROMIUM" ] || missing=" chromium"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        cannot "install$missing (Node.js 18.19 or newer; CHROMIUM=PATH names another browser)"
    fi
    # shellcheck disable=SC2086
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends $missing >/dev/null; } || cannot "apt-get could not install$missing"
    CHROMIUM=${CHROMIUM:-$(command -v chromium)}
fi
export CHROMIUM
if ! [ tests/site/node_modules -nt tests/site/package-lock.json ]; then
    (cd tests/site && npm ci --no-audit --no-fund --loglevel=error) ||
        cannot "npm could not install what tests/site/package-lock.json lists"
    touch tests/site/node_modules
fi
[ "$1" != --prepare ] || exit 0

SITE=$(cd "$1" && pwd)
export SITE
shift
cd tests/site
[ $# = 0 ] || exec node "$@"
exec node --test --test-concurrency=2 --test-reporter=spec
