#!/usr/bin/env bash
# Puts a release into the bucket that instances install from: ci/publish.sh DIR, where
# ci/release.sh has left it. Needs the AWS CLI with credentials, PULSE_ARTIFACTS (bucket), and
# PULSE_TAG, which must name the version. What is published is never replaced; one that was cut
# off is taken up again, as long as what is there already has the same bytes.
set -euo pipefail
cd "${1:?DIR is missing}"
: "${PULSE_ARTIFACTS:?}" "${PULSE_TAG:?}"
fail() {
    echo "publish: $*" >&2
    exit 1
}
version="${PULSE_TAG#v}"
[ -f "pulse-node-$version-linux-x86_64.tar.gz" ] || fail "the release is not of the tag $PULSE_TAG"
sha256sum --strict --check ./*.sha256 || fail "a checksum does not hold"
there="$(aws s3api list-objects-v2 --bucket "$PULSE_ARTIFACTS" --prefix nodes/linux/ \
    --query 'Contents[].Key' --output text)"
files="$(find . -type f ! -name '*.sha256' -printf '%P\n' | sort)"
# Nothing is sent before all that is there is known to be the same.
missing=()
# Checksums last: without one, nothing is installed.
for file in $files *.sha256; do
    key="nodes/linux/$file"
    if ! grep -qxF "$key" <<<"${there//$'\t'/$'\n'}"; then
        missing+=("$file")
    elif ! aws s3 cp --only-show-errors "s3://$PULSE_ARTIFACTS/$key" - | cmp -s - "$file"; then
        fail "$key is published already, with other bytes"
    fi
done
for file in "${missing[@]}"; do
    aws s3 cp --only-show-errors --no-progress "$file" "s3://$PULSE_ARTIFACTS/nodes/linux/$file"
done
echo "publish: $version: ${#missing[@]} files sent"
