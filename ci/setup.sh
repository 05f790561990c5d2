#!/usr/bin/env bash
# Installs what a bare Debian or Ubuntu lacks for building pulse-node, and says what it
# does. Does nothing when all is there.
set -euo pipefail
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "setup: need root (and there is no sudo) for: $*" >&2
        exit 1
    fi
}

missing=()
# need PACKAGE COMMAND...: the package is missing when the command fails.
need() {
    local package="$1"
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
has_cxx20() {
    echo 'int main() { return 0; }' | c++ -std=c++20 -x c++ -fsyntax-only -
}
has_boost() {
    echo '#include <boost/version.hpp>' | c++ -x c++ -fsyntax-only -
}
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' ||
        compgen -G '/usr/lib/*/libclang*.so*' || compgen -G '/usr/lib64/libclang*.so*'
}
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
need git command -v git
need curl command -v curl
need make command -v make
need cmake command -v cmake
need ccache command -v ccache
need pkg-config command -v pkg-config
need g++ has_cxx20
need libboost-dev has_boost
need clang command -v clang
need libclang-dev has_libclang

if [ "${#missing[@]}" -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "setup: this system has no apt-get; please install what these Debian packages hold: ${missing[*]}" >&2
        exit 1
    fi
    echo "setup: installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if ! command -v cargo >/dev/null && ! command -v rustup >/dev/null; then
    if apt-cache show rustup >/dev/null 2>&1; then
        echo "setup: installing rustup"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustup
    else
        channel="$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)"
        cat >&2 <<TEXT
setup: Rust is missing, and this system has no rustup package (Debian 13 and Ubuntu 24.04
have one). Please install rustup as its web site (rustup.rs) says, then try again; Rust
$channel is fetched by itself.
TEXT
        exit 1
    fi
fi
if command -v rustup >/dev/null && ! rustup show active-toolchain >/dev/null 2>&1; then
    channel="$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)"
    echo "setup: installing Rust $channel"
    rustup toolchain install "$channel" --profile minimal --component clippy --component rustfmt
fi
