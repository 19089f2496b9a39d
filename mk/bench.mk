# SPDX-License-Identifier: MIT
.PHONY: bench-boot
bench-boot: all tools
	@O=$(O) tests/bench/boot

.PHONY: bench-cpu
bench-cpu: all tools
	@O=$(O) tests/bench/cpu

.PHONY: bench-snapshot
bench-snapshot: all $(O)/tests/bench/net_guest tools
	@O=$(O) tests/bench/snapshot
