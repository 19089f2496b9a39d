# SPDX-License-Identifier: MIT
# It runs while guest FP state is in the host's registers, as src/vmm/soft does.
$(O)/obj/tests/lib/lockstep.o: CFLAGS += -mgeneral-regs-only -mno-red-zone \
	$(if $(findstring clang,$(CC)),-fno-builtin,-fno-tree-loop-distribute-patterns) \
	-fno-strict-aliasing $(if $(SAN),-DSOFT_NO_TAIL -fno-sanitize=alignment)
