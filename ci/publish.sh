#!/usr/bin/env bash
# Puts a release into the bucket that instances install from: ci/publish.sh DIR, where
# ci/release.sh has left it. Needs the AWS CLI with credentials, PULSE_ARTIFACTS (bucket), and
# PULSE_TAG, which must name the version. What is published is never replaced.
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
# Checksums last: without one, nothing is installed.
for file in $(find . -type f ! -name '*.sha256' -printf '%P\n' | sort) *.sha256; do
    key="nodes/linux/$file"
    ! grep -qxF "$key" <<<"${there//$'\t'/$'\n'}" || fail "$key is published already"
    aws s3 cp --only-show-errors --no-progress "$file" "s3://$PULSE_ARTIFACTS/$key"
done
echo "publish: $version"
