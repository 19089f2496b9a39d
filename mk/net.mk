# SPDX-License-Identifier: MIT
# A guest's network beside QEMU's, where that is installed.
$(O)/tests/bench/net_guest: tests/bench/guest/net_guest.c
	$(call say,GUESTCC,$@)
	@mkdir -p $(@D)
	$(Q)$(MUSL_CC) -std=gnu11 -O2 -static -s -D_GNU_SOURCE $(WARN) -o $@ $<

.PHONY: bench-net
bench-net: all $(O)/tests/bench/bench_net $(O)/tests/bench/net_guest $(O)/tests/tool/mkinitramfs
	@O=$(O) tests/bench/net.sh
