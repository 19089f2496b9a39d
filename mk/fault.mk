# SPDX-License-Identifier: MIT
# What tests of failing calls preload.  -fno-builtin: it defines what the compiler
# would take for libc's own.
FAULT_SO := $(O)/tests/fault/libfault.so

$(FAULT_SO): tests/fault/preload/fault.c
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -g -O2 -fPIC -fno-builtin \
		-ftls-model=initial-exec $(WARN) -shared -o $@ $< -ldl

tests: $(FAULT_SO)
