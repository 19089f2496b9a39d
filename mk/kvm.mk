# SPDX-License-Identifier: MIT
.PHONY: bench-kvm
bench-kvm: all $(O)/tests/bench/net_guest tools
	@O=$(O) tests/bench/kvm
