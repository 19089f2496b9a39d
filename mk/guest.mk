# SPDX-License-Identifier: MIT
# What a command in a VM costs; takes the base that `machinen install` made.
.PHONY: bench-exec
bench-exec: all $(O)/tests/bench/bench_exec
	@$(O)/tests/bench/bench_exec
