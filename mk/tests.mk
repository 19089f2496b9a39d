# SPDX-License-Identifier: MIT
# The real board, ahead of the one that tests/lib/fake_vm.c puts in its place.
$(O)/tests/unit/test_board: $(O)/obj/src/vmm/arch/x86/board.o
