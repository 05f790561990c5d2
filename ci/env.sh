# shellcheck shell=bash
# Sourced by the scripts beside it, after setup.sh has run: goes to the root of the repository and lets ccache
# keep what C and C++ compilers made, so that a native library is built once, not once
# per target folder.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# What setup.sh has just installed may not be on the path yet.
if [ -d "$HOME/.cargo/bin" ]; then
    export PATH="$HOME/.cargo/bin:$PATH"
fi

if command -v ccache >/dev/null; then
    # Paths below the root count as relative, so that another clone finds the same objects.
    export CCACHE_BASEDIR="$PWD" CCACHE_NOHASHDIR=true
    export CMAKE_C_COMPILER_LAUNCHER=ccache
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache
    export CC="ccache cc"
    export CXX="ccache c++"
fi

# Where Cargo puts what it builds. For the scripts that source this one.
# shellcheck disable=SC2034
target_dir="${CARGO_TARGET_DIR:-target}"

# Runs a command, and says how long it took: step NAME COMMAND...
step() {
    local name="$1" start="$SECONDS"
    shift
    echo "== $name"
    "$@"
    echo "== $name: $((SECONDS - start)) s"
}
