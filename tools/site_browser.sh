#!/bin/sh
# Tests the built site in headless Chromium, or runs a script of tests/site there:
#     sh tools/site_browser.sh FOLDER [SCRIPT ARGUMENT...]
# The driver and axe come from the npm registry, with the hashes of tests/site/package-lock.json. On
# Debian, as root (as on CI), what is missing of Chromium and Node.js is installed.
set -eu
cd "$(dirname "$0")/.."
SITE=$(cd "$1" && pwd)
export SITE
shift

missing=
CHROMIUM=${CHROMIUM:-}
for candidate in chromium chromium-browser google-chrome google-chrome-stable; do
    [ -n "$CHROMIUM" ] || CHROMIUM=$(command -v "$candidate" || true)
done
[ -n "$CHROMIUM" ] || missing="chromium"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "This needs:$missing. Install it; CHROMIUM=PATH names another browser." >&2
        exit 1
    fi
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    CHROMIUM=${CHROMIUM:-$(command -v chromium)}
fi
export CHROMIUM

cd tests/site
[ node_modules -nt package-lock.json ] || npm ci --silent
[ $# = 0 ] || exec node "$@"
exec node --test --test-concurrency=2 --test-reporter=spec
