# SPDX-License-Identifier: MIT
# Images and disk layers against what else does it: tables, no verdict.
.PHONY: bench-image
bench-image: $(O)/tests/bench/bench_image
	$(Q)$< $(BENCH_IMAGE)
