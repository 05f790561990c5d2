#!/usr/bin/env bash
# Installs the tools that judge infra/: Debian packages, and Python programs in
# target/infra. Does nothing when all are there. Terraform 1.11 or newer is not in Debian
# and has to be there already; so has kubectl, where Debian's is older than 1.27.
set -euo pipefail
# shellcheck source=ci/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# Command and the Debian package that brings it.
tools="promtool:prometheus amtool:prometheus-alertmanager systemd-analyze:systemd
    python3:python3 curl:curl npm:npm haproxy:haproxy nginx:nginx-light openssl:openssl
    prometheus-node-exporter:prometheus-node-exporter losetup:mount mkfs.ext4:e2fsprogs
    setpriv:util-linux fsfreeze:util-linux shellcheck:shellcheck debootstrap:debootstrap
    lintian:lintian docker-compose:docker-compose kubectl:kubernetes-client"
packages=()
for tool in $tools; do
    command -v "${tool%%:*}" >/dev/null || packages+=("${tool##*:}")
done
python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
    echo "setup-infra: installing ${packages[*]}"
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

# Older ones know neither tests that mock nor locks in S3.
if ! terraform version -json 2>/dev/null | python3 -c '
import json, sys
version = json.load(sys.stdin)["terraform_version"]
sys.exit(tuple(map(int, version.split("-")[0].split(".")))[:2] < (1, 11))' 2>/dev/null; then
    echo "setup-infra: Terraform 1.11 or newer has to be installed" >&2
    exit 1
fi
if ! kubectl version --client -o json | python3 -c '
import json, sys
version = json.load(sys.stdin).get("kustomizeVersion", "v0")
sys.exit(int(version.lstrip("v").split(".")[0]) < 5)
'; then
    echo "setup-infra: kubectl is older than 1.27" >&2
    exit 1
fi

# install FOLDER REQUIREMENTS
install() {
    cmp -s "$2" "$1/installed.txt" && return
    echo "setup-infra: installing the Python programs of $2"
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check -r "$2"
    cp "$2" "$1/installed.txt"
}
venv="$target_dir/infra"
install "$venv" infra/verify/requirements.txt
# It wants an older boto3 than the others.
install "$venv/policies" infra/verify/requirements-policies.txt
ln -sf ../policies/bin/checkov "$venv/bin/checkov"
"$(dirname "${BASH_SOURCE[0]}")/setup-release.sh"
