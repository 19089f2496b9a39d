# SPDX-License-Identifier: MIT
.PHONY: check-lab
# Tests on a real KVM, inside an emulated machine with SVM: by default those in which
# backends differ; `make check-lab LAB_TESTS=` runs all e2e scripts too.
LAB_TESTS ?= test_accel test_state test_system test_sandbox \
             10-boot 20-life 45-cpus 50-snapshot 60-move
check-lab: all tests
	@O=$(O) tests/lab/run $(LAB_TESTS)
