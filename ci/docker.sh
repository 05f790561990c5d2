#!/usr/bin/env bash
# Checks the Dockerfile: it holds no logic of its own (every RUN is a script of ci/), it
# does not run as root, says how to ask for its health, and hadolint is content where it is
# installed (with CI=true it has to be).
set -euo pipefail
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

fail() {
    echo "docker: $*" >&2
    exit 1
}

while read -r instruction script _; do
    [ "$instruction" = RUN ] || continue
    [[ "$script" == ci/*.sh ]] || fail "RUN $script is not a script of ci/"
    [ -x "$script" ] || fail "$script does not exist or is not executable"
done <Dockerfile

user="$(sed -n 's/^USER //p' Dockerfile | tail -1)"
case "$user" in
'' | root* | 0 | 0:*) fail "the image would run as root" ;;
esac

grep -q '^HEALTHCHECK ' Dockerfile || fail "the image does not say whether it is well"

if command -v hadolint >/dev/null; then
    hadolint Dockerfile
elif [ "${CI:-}" = true ]; then
    fail "hadolint is not installed"
else
    echo "docker: hadolint is not installed: skipped"
fi
