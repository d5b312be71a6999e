#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds and runs each fuzzer for FUZZ_TIME seconds on its corpus: tools/fuzz.sh FOLDER FLAGS [NAME...]
# New inputs stay in FOLDER/corpus/NAME; an input that fails stays in FOLDER and is named.
set -eu
folder=$1
flags=$2
shift 2
mkdir -p "$folder"

wanted() {
	[ $# = 1 ] && return 0
	name=$1
	shift
	for one in "$@"; do [ "$one" = "$name" ] && return 0; done
	return 1
}

grep -v '^#' spec/fuzz/targets | while read -r name parts; do
	wanted "$name" "$@" || continue
	# the parts are patterns and flags, to be split and expanded
	# shellcheck disable=SC2086
	clang $flags -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -w \
		"spec/fuzz/${name}_fuzz.c" $parts -o "$folder/$name"
	mkdir -p "$folder/corpus/$name"
	if ! "$folder/$name" -max_total_time="${FUZZ_TIME:-10}" -timeout=10 -rss_limit_mb=2048 \
		-artifact_prefix="$folder/$name-" "$folder/corpus/$name" "spec/fuzz/corpus/$name" \
		>"$folder/$name.log" 2>&1; then
		tail -40 "$folder/$name.log"
		echo "fuzz: $name FAILED" >&2
		exit 1
	fi
	echo "fuzz: $name ok, $(grep -o 'Done [0-9]* runs' "$folder/$name.log" | grep -o '[0-9]*') runs"
done
