#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs every check of `make lint`, all of them even when one fails: tools/lint.sh FLAGS SOURCE.c...
# FLAGS are what the sources are compiled with, warnings included. CC and LUA name the programs.
set -u
CC=${CC:-gcc}
LUA=${LUA:-lua5.4}
FLAGS=$1
export CC FLAGS
shift
failed=""

# The name of a check, then its command; its output is shown where it fails.
check() {
	name=$1
	shift
	start=$(date +%s)
	if output=$("$@" 2>&1); then
		printf 'lint: %-12s ok, %d s\n' "$name" $(($(date +%s) - start))
	else
		printf '%s\nlint: %-12s FAILED\n' "$output" "$name"
		failed="$failed $name"
	fi
}

# Runs a shell command for the files it is given on standard input, a few at a time on each processor.
each() {
	xargs -P "$(nproc)" -n "$1" sh -c "$2" sh
}

warnings() {
	printf '%s\n' "$@" | each 1 '$CC $FLAGS -O2 -Werror -c "$1" -o /dev/null'
}

# A third of the analyzer's default steps for each function takes less than half of its time and found the same.
# Standard error is its count of the warnings that are not ours.
tidy() {
	FLAGS="$FLAGS -Xclang -analyzer-config -Xclang max-nodes=75000"
	printf '%s\n' "$@" | each 1 'clang-tidy --quiet "$1" -- $FLAGS 2>/dev/null'
}

cppcheck_all() {
	cppcheck --quiet -j "$(nproc)" --std=c11 --language=c --enable=warning,performance,portability \
		--inline-suppr --suppress=missingIncludeSystem --suppress='*:/usr/*' --error-exitcode=1 \
		-D_GNU_SOURCE -Iruntime "$@"
}

lua_files() {
	find lua scripts spec tools runtime -name '*.lua' -exec luacheck --quiet {} +
}

layout() {
	find runtime spec -name '*.[ch]' -exec clang-format --dry-run -Werror {} +
}

# Every name of a file must be its own: the library can be one file.
amalgamation() {
	folder=$(mktemp -d)
	printf '%s\n' "$@" | grep -v /host/ | xargs "$LUA" tools/amalgamate.lua "$folder/sluice.c" /dev/null runtime &&
		$CC $FLAGS -w -fsyntax-only "$folder/sluice.c"
	status=$?
	rm -r "$folder"
	return $status
}

check warnings warnings "$@"
check clang-tidy tidy "$@"
check cppcheck cppcheck_all "$@"
check amalgamation amalgamation "$@"
check clang-format layout
check luacheck lua_files
for tool in tools/lint_*.lua; do
	name=${tool#tools/lint_}
	check "${name%.lua}" "$LUA" "$tool"
done

if [ -n "$failed" ]; then
	echo "lint: failed:$failed" >&2
	exit 1
fi
