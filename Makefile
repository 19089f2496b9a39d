# SPDX-License-Identifier: MIT
#
# One non-recursive Makefile.  Sources are found by folder, so adding a file
# needs no edit here; what a folder's objects may see is checked by
# scripts/check-includes.
#
#   make              build everything under build/
#   make check        set up the machine, then run all tests
#   make demo         set up the machine, build, install the base, show a VM
#   make install      PREFIX=/usr/local DESTDIR=
#   make man          write docs/man from the program's tables and the header
#
# Knobs: V=1 (show commands), SAN=address,undefined, CC=clang, O=dir (build
# directory), WERROR=1.

O       ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
AR      ?= ar
MUSL_CC ?= musl-gcc
VERSION := 0.1.0

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' $(1) $(2);)

PKGS := slirp glib-2.0 libarchive ext2fs com_err libzstd jansson libcrypto \
        libseccomp zydis liblz4 zlib liblzma
ifeq ($(filter clean help,$(MAKECMDGOALS)),)
PKG_CFLAGS := $(shell pkg-config --cflags $(filter-out zydis,$(PKGS)) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(filter-out zydis,$(PKGS)) 2>/dev/null) -lZydis
endif

WARN := -Wall -Wextra -Wno-unused-parameter -Wshadow -Wpointer-arith \
        -Wcast-qual -Wwrite-strings -Wstrict-prototypes -Wmissing-prototypes \
        -Wvla -Wimplicit-fallthrough -Wno-gnu-variable-sized-type-not-at-end $(if $(WERROR),-Werror)
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
OPT     ?= -O2
CPPFLAGS += -D_GNU_SOURCE -Iinclude -Isrc -I. -DMN_VERSION='"$(VERSION)"' $(PKG_CFLAGS)
CFLAGS  += -std=gnu11 -g $(OPT) -fPIC -pthread -fvisibility=hidden $(WARN) $(SANFLAGS)
LDFLAGS += -pthread $(SANFLAGS)

src-of = $(wildcard $(addsuffix /*.c,$(1)) $(addsuffix /*.S,$(1)))
obj-of = $(patsubst %,$(O)/obj/%.o,$(basename $(1)))

BASE_SRC  := $(call src-of,src/base src/layer src/proto)
VMM_DIRS  := src/vmm $(addprefix src/vmm/,kvm soft arch/x86 virtio dev disk net fs)
VMM_SRC   := $(filter-out src/vmm/main.c,$(call src-of,$(VMM_DIRS)))
LIB_SRC   := $(call src-of,src/lib src/image)
CLI_SRC   := $(call src-of,src/cli)
GUEST_SRC := $(call src-of,src/guest)

BASE_OBJ := $(call obj-of,$(BASE_SRC))
VMM_OBJ  := $(call obj-of,$(VMM_SRC))
LIB_OBJ  := $(call obj-of,$(LIB_SRC))
CLI_OBJ  := $(call obj-of,$(CLI_SRC))
# the guest's parts once more, for tests on the host
GUEST_OBJ := $(call obj-of,$(filter-out src/guest/main.c,$(GUEST_SRC)))

BASE_A := $(O)/lib/internal/libbase.a
VMM_A  := $(O)/lib/internal/libvmm.a
GUEST_A := $(O)/lib/internal/libguest.a
LIB_A  := $(O)/lib/libmachinen.a
LIB_SO := $(O)/lib/libmachinen.so

PROGRAMS := $(O)/bin/machinen-vmm $(O)/bin/machinen $(O)/bin/mn
GUEST    := $(O)/guest/init

.PHONY: all
all: $(PROGRAMS) $(LIB_A) $(LIB_SO) $(GUEST)

# --- compile ----------------------------------------------------------------

# Guest FP and vector registers live in the host's while guest code runs, so
# nothing in the software CPU may touch them (docs/cpu.md).  It also calls stubs
# from inline assembly, which a red zone would not survive, and loads and stores
# at whatever address the guest has, of whatever type.
$(O)/obj/src/vmm/soft/%.o: CFLAGS += -mgeneral-regs-only -mno-red-zone \
	$(if $(findstring clang,$(CC)),-fno-builtin,-fno-tree-loop-distribute-patterns) \
	-fno-strict-aliasing $(if $(SAN),-DSOFT_NO_TAIL -fno-sanitize=alignment)

$(O)/obj/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(O)/obj/%.o: %.S
	$(call say,AS,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -g -MMD -MP -c -o $@ $<

$(BASE_A): $(BASE_OBJ)
$(VMM_A): $(VMM_OBJ)
$(GUEST_A): $(GUEST_OBJ)
$(LIB_A): $(LIB_OBJ) $(BASE_OBJ)
$(BASE_A) $(VMM_A) $(GUEST_A) $(LIB_A):
	$(call say,AR,$@)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(LIB_SO): $(LIB_OBJ) $(BASE_OBJ) src/lib/machinen.map
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -shared -Wl,-soname,libmachinen.so.0 \
		-Wl,--version-script=src/lib/machinen.map -o $@ $(filter %.o,$^) $(PKG_LIBS)

$(O)/bin/machinen-vmm: $(O)/obj/src/vmm/main.o $(VMM_A) $(BASE_A)
$(O)/bin/machinen: $(CLI_OBJ) $(LIB_A)
$(O)/bin/machinen-vmm $(O)/bin/machinen:
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(O)/bin/mn: $(O)/bin/machinen
	$(Q)ln -sf machinen $@

# --- guest ------------------------------------------------------------------

# One static binary against musl: init and agent.  It shares the dependency-free
# part of src/base and the agent protocol with the host.
GUEST_SHARED := src/proto/agent.c src/base/wire.c src/base/buf.c
# The kernel's headers come after musl's own.
GUEST_INC := -idirafter /usr/include \
             -idirafter /usr/include/$(shell $(CC) -print-multiarch)
$(GUEST): $(GUEST_SRC) $(GUEST_SHARED) $(wildcard src/guest/*.h src/proto/*.h src/base/*.h)
	$(call say,GUESTCC,$@)
	@mkdir -p $(@D)
	$(Q)$(MUSL_CC) -std=gnu11 -Os -g0 -static -D_GNU_SOURCE -Isrc -Iinclude $(GUEST_INC) \
		-DMN_VERSION='"$(VERSION)"' $(filter-out -Wcast-qual,$(WARN)) \
		-ffunction-sections -fdata-sections -Wl,--gc-sections -s \
		-o $@ $(filter %.c,$^)

# --- tests ------------------------------------------------------------------

# Each .c directly in one of these folders is a program of its own; what tests
# share lives in tests/lib.
TEST_DIRS := tests/unit tests/dev tests/cpu tests/fuzz
TEST_LIB  := $(O)/lib/internal/libtest.a
test-bins = $(patsubst %.c,$(O)/%,$(wildcard $(addsuffix /*.c,$(1))))
TESTS := $(call test-bins,$(TEST_DIRS))
TOOLS := $(call test-bins,tests/tool tests/bench examples)

$(TEST_LIB): $(call obj-of,$(call src-of,tests/lib))
	$(call say,AR,$@)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(TESTS): $(O)/tests/%: $(O)/obj/tests/%.o $(TEST_LIB) $(VMM_A) $(GUEST_A) $(LIB_A)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(TEST_LIB) $(VMM_A) $(GUEST_A) $(LIB_A) $(PKG_LIBS) -lcmocka -lm

$(TOOLS): $(O)/%: $(O)/obj/%.o $(TEST_LIB) $(LIB_A) $(VMM_A) $(GUEST_A)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(TEST_LIB) $(VMM_A) $(GUEST_A) $(LIB_A) $(PKG_LIBS) -lcmocka -lutil -lm

.PHONY: tests tools
tests: $(TESTS) tools
tools: $(TOOLS)

.PHONY: deps check check-fast check-style
deps:
	@scripts/deps.sh

# all but fault and e2e, and static checks: seconds, no guest
check-fast: all tests check-style
	@O=$(O) scripts/run-tests unit dev cpu cli

check-style:
	@scripts/check-includes
	@scripts/check-globals $(O)
	@scripts/gen-codes --check
	@scripts/check-soft-symbols $(O)

check: deps
	@$(MAKE) --no-print-directory all tests
	@$(MAKE) --no-print-directory check-style
	@O=$(O) scripts/run-tests unit dev cpu fault cli e2e

-include mk/*.mk

# every object, nothing linked: what a broken neighbour cannot stop
.PHONY: objs
objs: $(BASE_OBJ) $(VMM_OBJ) $(GUEST_OBJ) $(LIB_OBJ) $(CLI_OBJ) $(TESTS:$(O)/tests/%=$(O)/obj/tests/%.o)

.PHONY: man
man: $(O)/bin/machinen
	O=$(O) scripts/gen-man

.PHONY: install
install: all
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin lib include libexec/machinen \
		lib/pkgconfig share/man/man1 share/man/man3 \
		share/bash-completion/completions share/zsh/site-functions \
		share/fish/vendor_completions.d)
	install -m 755 $(O)/bin/machinen $(DESTDIR)$(PREFIX)/bin/machinen
	ln -sf machinen $(DESTDIR)$(PREFIX)/bin/mn
	install -m 755 $(O)/bin/machinen-vmm $(DESTDIR)$(PREFIX)/libexec/machinen/
	install -m 755 $(O)/guest/init $(DESTDIR)$(PREFIX)/libexec/machinen/
	install -m 644 include/machinen.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(LIB_A) $(DESTDIR)$(PREFIX)/lib/
	install -m 755 $(LIB_SO) $(DESTDIR)$(PREFIX)/lib/libmachinen.so.0
	ln -sf libmachinen.so.0 $(DESTDIR)$(PREFIX)/lib/libmachinen.so
	printf '%s\n' 'Name: machinen' 'Description: microVMs that freeze, move and fork' \
		'Version: $(VERSION)' 'Libs: -L$(PREFIX)/lib -lmachinen' \
		'Cflags: -I$(PREFIX)/include' \
		>$(DESTDIR)$(PREFIX)/lib/pkgconfig/machinen.pc
	install -m 644 docs/man/machinen.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	ln -sf machinen.1 $(DESTDIR)$(PREFIX)/share/man/man1/mn.1
	install -m 644 docs/man/machinen.h.3 $(DESTDIR)$(PREFIX)/share/man/man3/
	$(O)/bin/machinen completion bash \
		>$(DESTDIR)$(PREFIX)/share/bash-completion/completions/machinen
	$(O)/bin/machinen completion zsh \
		>$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_machinen
	$(O)/bin/machinen completion fish \
		>$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/machinen.fish

# a fresh machine to the output of a VM, in one command
.PHONY: demo
demo: deps
	@$(MAKE) --no-print-directory all
	@O=$(O) scripts/demo

.PHONY: clean
clean:
	rm -rf $(O)

-include $(shell find $(O)/obj -name '*.d' 2>/dev/null)
