# SPDX-License-Identifier: MIT
.PHONY: check-lab
# The e2e suite on a real KVM, inside an emulated machine with SVM.  The subset
# in LAB_TESTS is what CI runs; `make check-lab LAB_TESTS=` runs all of it.
LAB_TESTS ?= boot exec snapshot fork
check-lab: all tools
	@O=$(O) tests/lab/run $(LAB_TESTS)
