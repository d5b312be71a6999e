# Sluice. `make demo` and `make test` need nothing but this file and a Debian 12 machine.

# ---- settings ----
PREFIX ?= /usr/local
DESTDIR ?=
BUILD ?= build
CC = gcc
AR ?= ar
LUA ?= lua5.4
CFLAGS ?= -O2 -g
# Set to nothing to let warnings pass.
WERROR ?= -Werror
# How long each fuzzer runs, in seconds.
FUZZ_TIME ?= 10
# Compilers at a time.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# Modules to leave out, with the libraries only they need: "server", "redis", "sqlite".
WITHOUT ?=
# What `make test` runs.
SPECS ?= spec
RUN_SPECS = $(if $(filter-out spec,$(SPECS)),spec/run.lua $(SPECS),spec/all.lua)

# ---- nothing below needs changing ----
PACKAGES_BUILD = gcc make pkg-config libc6-dev liblua5.4-dev lua5.4 libcurl4-openssl-dev libssl-dev \
	libev-dev lua-cjson-dev libc-ares-dev libedit-dev node-llhttp libhiredis-dev \
	libsqlite3-dev ca-certificates
PACKAGES_TEST = $(PACKAGES_BUILD) lua-busted lua-cjson openssl util-linux procps tmux redis-server
# Specs that lack these are pending, with the reason.
PACKAGES_EXTRA = nginx-light chromium libsdl2-dev xvfb prometheus python3-scipy
PACKAGES_LINT = $(PACKAGES_BUILD) lua-check clang-format clang-tidy cppcheck
PACKAGES_FUZZ = $(PACKAGES_BUILD) clang libclang-rt-14-dev
PACKAGES_BENCH = $(PACKAGES_TEST) nginx-light libnginx-mod-http-lua wrk python3-requests python3-uvicorn \
	python3-fastapi python3-uvloop python3-httptools python3-aiohttp python3-httpx lua-http lua5.1

LLHTTP = /usr/share/llhttp
LIBDIR := $(shell $(CC) -print-multiarch 2>/dev/null)
STATIC = /usr/lib/$(LIBDIR)
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wwrite-strings -Wformat=2 -Wundef -Wconversion -Wno-sign-conversion $(WERROR)
# C has no exceptions: without the tables to unwind by, the program is a tenth smaller; debuggers read those of -g.
OWN_CFLAGS = -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden -pthread -fno-asynchronous-unwind-tables -fno-unwind-tables
INCLUDES = -Iruntime -isystem /usr/include/lua5.4 -isystem /usr/share/include/llhttp
LIBS = -lcurl $(REDIS_LIBS) $(SQLITE_LIBS) $(TLS_LIBS) -lcrypto -lcares -lev -lm -ldl -pthread
# runtime/host/lazy.c loads libcurl, OpenSSL and SQLite when they are first called.
BINARY_LIBS = -Wl,--whole-archive $(STATIC)/liblua5.4.a -Wl,--no-whole-archive \
	$(STATIC)/liblua5.4-cjson.a $(STATIC)/libev.a $(STATIC)/libcares.a $(REDIS_STATIC) -lm -ldl -pthread

# Lua's functions are for C modules that a script loads; what else is linked in is not theirs. Relocations of
# pointers into the program itself take bits instead of 24 bytes each.
BINARY_LDFLAGS = -Wl,--export-dynamic-symbol=lua_* -Wl,--export-dynamic-symbol=luaL_* \
	-Wl,--export-dynamic-symbol=luaopen_* -Wl,-z,pack-relative-relocs

ifneq ($(filter-out server redis sqlite,$(WITHOUT)),)
$(error WITHOUT can leave out: server redis sqlite)
endif
ifneq ($(filter-out $(WITHOUT),server redis),)
# of these only: libcurl brings its own
TLS_LIBS = -lssl
endif
ifeq ($(filter redis,$(WITHOUT)),)
REDIS_LIBS = -lhiredis
# of which the program takes the reader of replies: some kilobytes
REDIS_STATIC = $(STATIC)/libhiredis.a
endif
ifeq ($(filter sqlite,$(WITHOUT)),)
SQLITE_LIBS = -lsqlite3
endif
ifeq ($(filter server,$(WITHOUT)),)
LLHTTP_OBJECTS = $(BUILD)/llhttp/api.o $(BUILD)/llhttp/http.o $(BUILD)/llhttp/llhttp.o
endif
WITHOUT_CFLAGS = $(foreach module,$(WITHOUT),-DSLUICE_WITHOUT_$(shell echo $(module) | tr a-z A-Z))

SOURCES := $(filter-out $(foreach module,$(WITHOUT),$(wildcard runtime/modules/$(module)/*.c)), \
	$(wildcard runtime/*.c runtime/core/*.c runtime/modules/*/*.c))
HOST_SOURCES := $(wildcard runtime/host/*.c)
EXAMPLES := $(patsubst runtime/examples/%.c,$(BUILD)/examples/%,$(wildcard runtime/examples/*.c))
# npc.c, where there is a screen library to draw with
SDL_CFLAGS := $(patsubst -I%,-isystem %,$(shell pkg-config --cflags sdl2 2>/dev/null))
ifeq ($(SDL_CFLAGS),)
EXAMPLES := $(filter-out $(BUILD)/examples/npc,$(EXAMPLES))
endif
HEADERS := $(wildcard runtime/*.h runtime/*/*.h runtime/modules/*/*.h)
LIBRARY := $(shell find lua -name '*.lua' 2>/dev/null)
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o) $(LLHTTP_OBJECTS) $(BUILD)/library.o
# What a stock Lua loads: the modules, without the embedding API and the embedded library.
ROCK_OBJECTS := $(filter-out $(BUILD)/runtime/%.o $(BUILD)/library.o,$(OBJECTS)) \
	$(filter $(BUILD)/runtime/core/%.o $(BUILD)/runtime/modules/%.o,$(OBJECTS))
HOST_OBJECTS := $(HOST_SOURCES:%.c=$(BUILD)/%.o) $(BUILD)/command.o

.PHONY: test-clean-root test-rock deps-rock node-packages all types docs examples rock install-rock deb deps deps-test deps-extra deps-lint deps-fuzz deps-bench demo test lint asan bench fuzz install \
	uninstall clean help
.DELETE_ON_ERROR:

all: $(BUILD)/sluice $(BUILD)/libsluice.a $(BUILD)/libsluice.so $(BUILD)/sluice.so
examples: $(EXAMPLES)
rock: $(BUILD)/sluice.so $(BUILD)/reference.lua
# LuaCATS definitions for editors: names, comments and types without the code.
types:
	@$(LUA) tools/types.lua $(BUILD)/types lua
# The reference in Markdown, a page a module, from the same annotations.
docs: types
	@rm -rf $(BUILD)/docs/reference
	@$(LUA) tools/pages.lua $(BUILD)/docs/reference lua

help:
	@echo 'make demo       build, start the emulator, run scripts/quickstart.lua against it'
	@echo 'make test       build, run the specs (SPECS=spec/NAME_spec.lua for one)'
	@echo 'make test-rock  the rock by luarocks, and the specs under lua5.4'
	@echo 'make test-clean-root    the package and make install on a Debian of their own (root, debootstrap)'
	@echo 'make lint       warnings, clang-tidy, cppcheck, clang-format, luacheck, the house rules'
	@echo 'make asan       the specs under AddressSanitizer and UBSan, with leak detection'
	@echo 'make bench      figures, as ratios against peers in the same run'
	@echo 'make fuzz       each fuzzer for FUZZ_TIME seconds'
	@echo 'make WITHOUT="server redis sqlite" BUILD=build/small test    the same without these modules'
	@echo 'make types      LuaCATS definition files for editors, in $(BUILD)/types'
	@echo 'make docs       the reference in Markdown, in $(BUILD)/docs/reference, and the types'
	@echo 'make install    PREFIX= and DESTDIR= as usual; make uninstall takes it away'
	@echo 'make amalgamation   libsluice as $(BUILD)/sluice.c and $(BUILD)/sluice.h'
	@echo 'make deb        a Debian package, in $(BUILD)/deb'
	@echo 'make all        build/sluice, build/libsluice.a, build/libsluice.so'

# ---- Debian packages: installed where we may, else named ----
define need
	@missing=; for package in $(1); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then run=; elif sudo -n true 2>/dev/null; then run=sudo; else run=no; fi; \
	  if [ "$$run" = no ]; then \
	    echo "Debian packages are missing. Run this, then make again:" >&2; \
	    echo "    sudo apt-get install$$missing" >&2; exit 1; \
	  fi; \
	  echo "installing:$$missing" >&2; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  $$run apt-get update -qq >&2 && $$run apt-get install -y -qq --no-install-recommends $$missing >&2 || exit 1; \
	fi
endef

deps:
	$(call need,$(PACKAGES_BUILD))
deps-test:
	$(call need,$(PACKAGES_TEST))
deps-extra:
	$(call need,$(PACKAGES_EXTRA))
deps-rock:
	$(call need,$(PACKAGES_TEST) luarocks)
deps-lint:
	$(call need,$(PACKAGES_LINT))
deps-fuzz:
	$(call need,$(PACKAGES_FUZZ))
deps-bench:
	$(call need,$(PACKAGES_BENCH))

# Test data and clients that others wrote; specs that lack them say so.
node-packages:
	@if command -v npm >/dev/null && ! cmp -s spec/node/package-lock.json spec/node/node_modules/.installed; then \
	  npm ci --prefix spec/node --silent && cp spec/node/package-lock.json spec/node/node_modules/.installed || \
	  echo 'npm could not install spec/node: some specs will be skipped' >&2; \
	fi

# ---- what users and CI run ----
demo: deps
	@echo 'building $(BUILD)/sluice' >&2
	@$(MAKE) --no-print-directory -s -j$(JOBS) $(BUILD)/sluice
	@$(BUILD)/sluice --emulator scripts/quickstart.lua

test: deps-test node-packages
	@echo 'building $(BUILD)' >&2
	@$(MAKE) --no-print-directory -s -j$(JOBS) all examples
	@SLUICE_CC='$(CC)' SLUICE_CFLAGS='$(CFLAGS)' SLUICE_LIBS='$(LIBS)' $(BUILD)/sluice $(RUN_SPECS)

# The specs under a stock Lua, with the rock as luarocks installs it; those about the program are pending.
ROCK_TREE = $(abspath $(BUILD))/rock
test-rock: deps-rock node-packages
	@rm -rf $(ROCK_TREE)
	@BUILD='$(BUILD)' luarocks --lua-version 5.4 make --tree $(ROCK_TREE) --no-doc sluice-scm-1.rockspec >$(BUILD)/rock.log 2>&1 \
	  || { cat $(BUILD)/rock.log; exit 1; }
	@LUA_PATH='$(ROCK_TREE)/share/lua/5.4/?.lua;$(ROCK_TREE)/share/lua/5.4/?/init.lua;;' \
	  LUA_CPATH='$(ROCK_TREE)/lib/lua/5.4/?.so;;' $(LUA) $(RUN_SPECS)

ASAN_CFLAGS = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined

# Headers and packages come first, so the targets below are built by a second make.
asan: deps-test node-packages
	@echo 'building $(BUILD)/asan' >&2
	@$(MAKE) --no-print-directory -s -j$(JOBS) BUILD=$(BUILD)/asan CC='$(CC)' CFLAGS='$(ASAN_CFLAGS)' all examples
	@ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  LSAN_OPTIONS=suppressions=spec/lsan.supp:print_suppressions=0 \
	  SLUICE_SLOW=1 SLUICE_CC='$(CC)' SLUICE_CFLAGS='$(ASAN_CFLAGS)' SLUICE_LIBS='$(LIBS)' \
	  $(BUILD)/asan/sluice $(RUN_SPECS)

lint: deps-lint
	@CC='$(CC)' LUA='$(LUA)' tools/lint.sh '$(OWN_CFLAGS) $(WARNINGS) $(INCLUDES)' $(SOURCES) $(HOST_SOURCES)

fuzz: deps-fuzz
	@FUZZ_TIME=$(FUZZ_TIME) tools/fuzz.sh $(BUILD)/fuzz '$(OWN_CFLAGS) $(INCLUDES)'

bench: deps-bench node-packages
	@if command -v npm >/dev/null && [ ! -d spec/bench/node/node_modules ]; then \
	  npm ci --prefix spec/bench/node --ignore-scripts --silent || echo 'npm could not install spec/bench/node' >&2; \
	fi
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@$(BUILD)/sluice spec/bench/run.lua

# ---- building ----
$(BUILD)/%.o: %.c $(HEADERS) Makefile
	@mkdir -p $(@D)
	$(CC) $(OWN_CFLAGS) $(WITHOUT_CFLAGS) $(WARNINGS) $(INCLUDES) $(CFLAGS) -c $< -o $@

$(BUILD)/llhttp/%.o: $(LLHTTP)/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -fPIC -fvisibility=hidden $(INCLUDES) $(CFLAGS) -w -c $< -o $@

# What the REPL's help and completion know, from the annotations of the library.
$(BUILD)/reference.lua: $(LIBRARY) tools/reference.lua tools/annotations.lua tools/lua_source.lua tools/files.lua
	@mkdir -p $(@D)
	$(LUA) tools/reference.lua $@ lua

$(BUILD)/library.c: $(LIBRARY) $(BUILD)/reference.lua tools/embed.lua tools/lz4.lua tools/bytecode.lua
	@mkdir -p $(@D)
	$(LUA) tools/embed.lua --pack $@ sl_library lua sluice.repl.reference=$(BUILD)/reference.lua

$(BUILD)/command.c: runtime/host/command.lua tools/embed.lua
	@mkdir -p $(@D)
	$(LUA) tools/embed.lua $@ sl_command sluice.host.command=runtime/host/command.lua

$(BUILD)/library.o $(BUILD)/command.o: %.o: %.c runtime/embedded.h
	$(CC) $(OWN_CFLAGS) $(INCLUDES) -Iruntime $(CFLAGS) -c $< -o $@

$(BUILD)/libsluice.a: $(OBJECTS)
	rm -f $@
	$(AR) rcs $@ $^

# What the modules export is for a stock Lua: of the shared library only the functions of sluice.h are.
$(BUILD)/libsluice.map: Makefile
	@mkdir -p $(@D)
	echo '{ global: sluice_*; local: *; };' > $@

$(BUILD)/libsluice.so: $(OBJECTS) $(BUILD)/libsluice.map
	$(CC) $(CFLAGS) -shared -Wl,-soname,libsluice.so.0 -Wl,--version-script,$(BUILD)/libsluice.map $(OBJECTS) $(LIBS) -o $@
	ln -sf libsluice.so $(BUILD)/libsluice.so.0

$(BUILD)/sluice.so: $(ROCK_OBJECTS)
	$(CC) $(CFLAGS) -shared $^ $(LIBS) -o $@

$(BUILD)/examples/npc: EXAMPLE_CFLAGS = $(SDL_CFLAGS)
$(BUILD)/examples/npc: EXAMPLE_LIBS = -lSDL2_test -lSDL2
$(BUILD)/examples/%: runtime/examples/%.c $(BUILD)/libsluice.a
	@mkdir -p $(@D)
	$(CC) $(OWN_CFLAGS) $(WARNINGS) -Iruntime $(EXAMPLE_CFLAGS) $(CFLAGS) $^ -llua5.4 $(LIBS) $(EXAMPLE_LIBS) \
	  $(LDFLAGS) -o $@

$(BUILD)/sluice: $(HOST_OBJECTS) $(OBJECTS)
	$(CC) $(CFLAGS) $(BINARY_LDFLAGS) $^ $(BINARY_LIBS) $(LDFLAGS) -o $@

# ---- one file of C ----
AMALGAMATED = $(SOURCES) $(if $(LLHTTP_OBJECTS),$(LLHTTP)/api.c $(LLHTTP)/http.c $(LLHTTP)/llhttp.c) $(BUILD)/library.c
AMALGAMATION_PACKAGES = lua5.4 libcurl $(if $(REDIS_LIBS),hiredis )$(if $(SQLITE_LIBS),sqlite3 )libssl libcrypto libcares

.PHONY: amalgamation test-amalgamation
amalgamation: $(BUILD)/sluice.c $(BUILD)/sluice.h
$(BUILD)/sluice.h: runtime/sluice.h
	@mkdir -p $(@D)
	cp $< $@
$(BUILD)/sluice.c: $(AMALGAMATED) $(HEADERS) Makefile tools/amalgamate.lua
	@mkdir -p $(@D)
	@printf '%s\n' '/* SPDX-License-Identifier: MIT */' '/*' \
	  ' * libsluice $(VERSION) with its Lua library in one file; sluice.h lies beside it. A program is built with:' ' *' \
	  " *     cc -O2 host.c sluice.c \$$(pkg-config --cflags --libs $(AMALGAMATION_PACKAGES)) -lev -lm -ldl -pthread -o host" \
	  ' */' '#ifndef _GNU_SOURCE' '#define _GNU_SOURCE' '#endif' $(patsubst -D%,'#define %',$(WITHOUT_CFLAGS)) > $@.head
	$(LUA) tools/amalgamate.lua $@ $@.head runtime:/usr/share/include/llhttp $(AMALGAMATED)
	@rm $@.head

# The package, make install and a bundle on a Debian that has nothing else. Needs root, debootstrap and a mirror.
test-clean-root:
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@SLUICE_SLOW=1 $(BUILD)/sluice spec/run.lua spec/clean_root.lua

# A host with it, by the line that stands at its top.
test-amalgamation: deps
	@$(MAKE) --no-print-directory -s amalgamation
	@mkdir -p $(BUILD)/amalgamation
	@cp $(BUILD)/sluice.c $(BUILD)/sluice.h $(BUILD)/amalgamation
	@cp runtime/examples/plugin.c $(BUILD)/amalgamation/host.c
	@cd $(BUILD)/amalgamation && sh -e -c "$$(sed -n 's/^ \*     cc/$(CC)/p' sluice.c)"
	@$(BUILD)/amalgamation/host | grep -q 'a good one: done: {"price":42}'
	@echo 'amalgamation: built and run'

# ---- installing ----
VERSION = $(shell sed -n 's/^.define SLUICE_VERSION "\(.*\)"/\1/p' runtime/sluice.h)
# Where libraries go, below PREFIX; Debian's packages say lib/$(LIBDIR).
LIBRARIES ?= lib
STAGE = $(BUILD)/stage
DOCUMENTS = $(STAGE)/share/doc/sluice

# All that is installed, as it is below PREFIX; whatever the umask is, all may read it.
.PHONY: stage
stage: all
	rm -rf $(STAGE)
	install -d $(STAGE)/bin $(STAGE)/include $(STAGE)/$(LIBRARIES)/pkgconfig $(STAGE)/share/man/man1 \
	  $(STAGE)/share/sluice $(DOCUMENTS)/docs $(DOCUMENTS)/examples
	install -m 755 $(BUILD)/sluice $(STAGE)/bin/sluice
	install -m 644 runtime/sluice.h $(STAGE)/include/sluice.h
	install -m 644 $(BUILD)/libsluice.a $(STAGE)/$(LIBRARIES)/libsluice.a
	install -m 755 $(BUILD)/libsluice.so $(STAGE)/$(LIBRARIES)/libsluice.so.0
	ln -s libsluice.so.0 $(STAGE)/$(LIBRARIES)/libsluice.so
	install -m 644 docs/sluice.1 $(STAGE)/share/man/man1/sluice.1
	$(LUA) tools/types.lua $(STAGE)/share/sluice/types lua
	install -m 644 README.md CHANGELOG.md LICENSE $(DOCUMENTS)
	install -m 644 docs/*.md $(DOCUMENTS)/docs
	$(LUA) tools/pages.lua $(DOCUMENTS)/docs/reference lua
	install -m 644 scripts/* runtime/examples/* $(DOCUMENTS)/examples
	printf '%s\n' 'prefix=$(abspath $(PREFIX))' 'Name: sluice' 'Description: model endpoints from Lua, embeddable' \
	  'Version: $(VERSION)' 'Requires.private: libcurl $(if $(REDIS_LIBS),hiredis )$(if $(SQLITE_LIBS),sqlite3 )libssl libcrypto libcares lua5.4' \
	  'Libs: -L$${prefix}/$(LIBRARIES) -lsluice' \
	  'Libs.private: -lev -lm -ldl -pthread' 'Cflags: -I$${prefix}/include' \
	  > $(STAGE)/$(LIBRARIES)/pkgconfig/sluice.pc
	chmod -R u=rwX,go=rX $(STAGE)

# `sudo make install` leaves nothing of root's in the clone: what `make all` built is staged elsewhere.
install: all
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  $(MAKE) --no-print-directory -s stage STAGE="$$folder/stage" && \
	  tools/install.sh "$$folder/stage" '$(DESTDIR)$(PREFIX)'

uninstall:
	@tools/uninstall.sh '$(DESTDIR)$(PREFIX)'

# Prints the path of the package.
deb: deps
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@$(MAKE) --no-print-directory -s stage STAGE=$(BUILD)/stage-deb PREFIX=/usr LIBRARIES=lib/$(LIBDIR)
	@tools/deb.sh $(BUILD)/stage-deb $(VERSION) $(BUILD)/deb

# For luarocks, which says where: sluice-scm-1.rockspec.
install-rock: rock
	install -d '$(ROCK_LIBDIR)' '$(ROCK_LUADIR)'
	install -m 755 $(BUILD)/sluice.so '$(ROCK_LIBDIR)/sluice.so'
	cp -R lua/sluice '$(ROCK_LUADIR)/sluice'
	install -m 644 $(BUILD)/reference.lua '$(ROCK_LUADIR)/sluice/repl/reference.lua'

clean:
	rm -rf $(BUILD)
