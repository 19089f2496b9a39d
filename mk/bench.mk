# SPDX-License-Identifier: MIT
.PHONY: bench-boot
bench-boot: all tools
	@O=$(O) tests/bench/boot
