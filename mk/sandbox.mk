# SPDX-License-Identifier: MIT
# The seccomp allow-list follows from the #syscalls annotations in the sources.
SYSCALLS_H := $(O)/gen/vmm_syscalls.h

$(SYSCALLS_H): scripts/syscalls $(filter %.c,$(BASE_SRC) $(VMM_SRC))
	@mkdir -p $(@D)
	$(Q)scripts/syscalls $(filter %.c,$^) > $@.tmp
	$(Q)cmp -s $@.tmp $@ && rm $@.tmp && touch $@ || mv $@.tmp $@

$(O)/obj/src/vmm/sandbox.o: CPPFLAGS += -I$(O)/gen
$(O)/obj/src/vmm/sandbox.o: $(SYSCALLS_H)
