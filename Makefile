# Names for the scripts in ci/; nothing else.

.PHONY: run test check bench test-long test-infra

run:
	@ci/run.sh

test:
	@ci/test.sh

check:
	@ci/check.sh

bench:
	@ci/bench.sh

test-long:
	@ci/test-long.sh

test-infra:
	@ci/test-infra.sh
