# SPDX-License-Identifier: MIT
# Guest programs of the e2e scripts, static.
E2E_GUEST := $(patsubst tests/e2e/guest/%.c,$(O)/tests/guest/%,$(wildcard tests/e2e/guest/*.c))

$(E2E_GUEST): $(O)/tests/guest/%: tests/e2e/guest/%.c
	$(call say,GUESTCC,$@)
	@mkdir -p $(@D)
	$(Q)$(MUSL_CC) -std=gnu11 -O2 -static -s -D_GNU_SOURCE $(WARN) -o $@ $<

tests: $(E2E_GUEST)
