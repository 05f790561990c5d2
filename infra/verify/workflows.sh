#!/usr/bin/env bash
# The workflows are sound: schema, actionlint, zizmor (offline); they run nothing but scripts of
# this repository, and every action is pinned to a commit.
set -euo pipefail
# shellcheck source=infra/verify/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tools="${INFRA_TOOLS:-$root/target/infra/bin}"
cache="${CARGO_TARGET_DIR:-$root/target}/infra/workflows"
mkdir -p "$cache"
cp "$root"/infra/verify/workflows/* "$cache/"
if ! cmp -s "$cache/package-lock.json" "$cache/node_modules/installed-lock.json"; then
    (cd "$cache" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp "$cache/package-lock.json" "$cache/node_modules/installed-lock.json"
fi
cd "$root/.github/workflows"
"$tools/check-jsonschema" --quiet --builtin-schema vendor.github-workflows -- *.yml
node "$cache/lint.mjs" ./*.yml
"$tools/zizmor" --offline --no-progress --quiet --config "$root/infra/verify/zizmor.yml" .

while IFS=: read -r file line text; do
    command="${text#*run: }"
    # Variables that are taken away are no logic.
    read -r script _ <<<"${command#env -u CI }"
    if [ ! -x "$root/$script" ] || [[ ! "$script" =~ ^(ci/[a-z-]+\.sh|\.ci/run)$ ]]; then
        fail "$file:$line: '$command' is not a script of ci/"
    fi
done < <(grep -nE '^ +(- )?run:' -- *.yml)
while IFS=: read -r file line text; do
    [[ "$text" =~ uses:\ (\./|[A-Za-z0-9/_-]+@[0-9a-f]{40}\ #\ v[0-9.]+$) ]] || fail "$file:$line: not pinned:$text"
done < <(grep -nE '^ +(- )?uses:' -- *.yml)
echo "workflows: sound, thin and pinned"
