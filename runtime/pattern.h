/* SPDX-License-Identifier: MIT */
/* Lua's patterns with a bound on the work that one call may take. An engine without lua.h. */
#ifndef SL_PATTERN_H
#define SL_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PATTERN_CAPTURES = 32,
};

/** Lengths of captures that are none: `()`, and one that was not closed. */
#define PATTERN_POSITION ((size_t)-2)
#define PATTERN_OPEN ((size_t)-1)

typedef struct sl_capture {
    const char *start;
    size_t length;
} sl_capture;

/** A pattern and a subject; zero it, set the first four, then match at one place after another. */
typedef struct sl_pattern {
    const char *subject, *subject_end;
    const char *pattern, *pattern_end;
    /** Steps that are left to all matches of this call. */
    uint64_t steps;
    int depth, count;
    /** What is wrong with the pattern, or that it takes too long: a static text. */
    const char *wrong;
    sl_capture captures[PATTERN_CAPTURES];
} sl_pattern;

/** Where the match that begins at `at` ends; NULL where there is none, or `wrong` is set. */
const char *sl_pattern_match(sl_pattern *self, const char *at);
/** Whether the pattern is only a text. */
bool sl_pattern_is_plain(const char *pattern, size_t size);

#endif
