#!/usr/bin/env bash
# Refuses an executable that the oldest systems which releases are for would not start
# (Amazon Linux 2023 has glibc 2.34, Ubuntu 22.04 has 2.35): ci/portable.sh FILE
set -euo pipefail
newest=2.34
file="${1:?FILE is missing}"
fail() {
    echo "portable: $file: $*" >&2
    exit 1
}

# Only what the smallest installation of such a system has.
while read -r library; do
    case "$library" in
    libc.so.6 | libm.so.6 | libgcc_s.so.1 | ld-linux-*) ;;
    *) fail "needs $library" ;;
    esac
done < <(readelf -dW "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')

versions="$(readelf -VW "$file" | sed -n 's/.* Name: \(GLIBC[A-Z_]*[0-9A-Z_.]*\) .*/\1/p' | sort -uV)"
[ -n "$versions" ] || fail "no dynamic executable for glibc"
for version in $versions; do
    case "$version" in
    # Features of the loader, such as GLIBC_ABI_DT_RELR (2.36).
    *ABI*) fail "needs $version" ;;
    esac
    [ "$(printf '%s\n' "${version#GLIBC_}" "$newest" | sort -V | tail -1)" = "$newest" ] ||
        fail "needs $version, newer than $newest: $(readelf --dyn-syms -W "$file" |
            awk -v want="@$version" 'index($8, want) {printf "%s ", $8}')(build on Debian 12)"
done
echo "portable: $file needs glibc $newest or newer, and nothing else"
