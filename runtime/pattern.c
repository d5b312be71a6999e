/* SPDX-License-Identifier: MIT */
/*
 * A backtracking matcher for the patterns of Lua 5.4. It differs from Lua's own in one thing: each
 * look at a byte is a step, and when the steps are used up it gives up. Lua's runs for minutes on a
 * few hundred bytes where a pattern is made for it.
 */
#include "pattern.h"

#include <ctype.h>
#include <string.h>

enum {
    /* Nested matches, each a frame of the C stack of about 100 bytes. */
    PATTERN_DEPTH = 200,
};

static const char *match_here(sl_pattern *self, const char *at, const char *p);

static const char *set_wrong(sl_pattern *self, const char *wrong)
{
    if (!self->wrong)
        self->wrong = wrong;
    return NULL;
}

/** Takes steps off; false when the match must end. */
static bool take_steps(sl_pattern *self, size_t count)
{
    if (self->wrong)
        return false;
    if (count > self->steps) {
        self->steps = 0;
        set_wrong(self, "pattern too complex for this subject");
        return false;
    }
    self->steps -= count;
    return true;
}

/* ---- one item: a byte, a class, a set ---- */

/** Behind the item at `p`; NULL with `wrong` set. */
static const char *item_end(sl_pattern *self, const char *p)
{
    const char *end = self->pattern_end;
    if (*p == '%')
        return p + 1 < end ? p + 2 : set_wrong(self, "malformed pattern (ends with '%')");
    if (*p != '[')
        return p + 1;
    p++;
    if (p < end && *p == '^')
        p++;
    do { /* a ']' in the first place is one of the set */
        if (p >= end)
            return set_wrong(self, "malformed pattern (missing ']')");
        p += *p == '%' && p + 1 < end ? 2 : 1;
    } while (p >= end || *p != ']');
    return p + 1;
}

static bool class_has(int class, int byte)
{
    bool has;
    switch (tolower(class)) {
    case 'a':
        has = isalpha(byte);
        break;
    case 'c':
        has = iscntrl(byte);
        break;
    case 'd':
        has = isdigit(byte);
        break;
    case 'g':
        has = isgraph(byte);
        break;
    case 'l':
        has = islower(byte);
        break;
    case 'p':
        has = ispunct(byte);
        break;
    case 's':
        has = isspace(byte);
        break;
    case 'u':
        has = isupper(byte);
        break;
    case 'w':
        has = isalnum(byte);
        break;
    case 'x':
        has = isxdigit(byte);
        break;
    case 'z':
        has = byte == 0;
        break;
    default:
        return class == byte;
    }
    return isupper(class) ? !has : has;
}

/** A set from its '[' to its ']'. */
static bool set_has(const char *p, const char *last, int byte)
{
    bool found = true;
    p++;
    if (*p == '^') {
        found = false;
        p++;
    }
    for (; p < last; p++) {
        if (*p == '%') {
            p++;
            if (class_has((unsigned char)*p, byte))
                return found;
        } else if (p + 2 < last && p[1] == '-') {
            if ((unsigned char)p[0] <= byte && byte <= (unsigned char)p[2])
                return found;
            p += 2;
        } else if ((unsigned char)*p == byte) {
            return found;
        }
    }
    return !found;
}

static bool item_has(sl_pattern *self, const char *p, const char *end, const char *at)
{
    if (at >= self->subject_end || !take_steps(self, *p == '[' ? (size_t)(end - p) : 1))
        return false;
    int byte = (unsigned char)*at;
    switch (*p) {
    case '.':
        return true;
    case '%':
        return class_has((unsigned char)p[1], byte);
    case '[':
        return set_has(p, end - 1, byte);
    default:
        return (unsigned char)*p == byte;
    }
}

/* ---- repetitions ---- */

static const char *match_most(sl_pattern *self, const char *at, const char *p, const char *end)
{
    const char *last = at;
    while (item_has(self, p, end, last))
        last++;
    for (;;) {
        const char *result = match_here(self, last, end + 1);
        if (result || self->wrong || last == at)
            return result;
        last--;
    }
}

static const char *match_least(sl_pattern *self, const char *at, const char *p, const char *end)
{
    for (;; at++) {
        const char *result = match_here(self, at, end + 1);
        if (result || !item_has(self, p, end, at))
            return result;
    }
}

/* ---- captures ---- */

static const char *open_capture(sl_pattern *self, const char *at, const char *p, size_t length)
{
    if (self->count == PATTERN_CAPTURES)
        return set_wrong(self, "too many captures");
    self->captures[self->count++] = (sl_capture){at, length};
    const char *result = match_here(self, at, p);
    if (!result)
        self->count--;
    return result;
}

static const char *close_capture(sl_pattern *self, const char *at, const char *p)
{
    int i = self->count - 1;
    while (i >= 0 && self->captures[i].length != PATTERN_OPEN)
        i--;
    if (i < 0)
        return set_wrong(self, "invalid pattern capture");
    self->captures[i].length = (size_t)(at - self->captures[i].start);
    const char *result = match_here(self, at, p);
    if (!result)
        self->captures[i].length = PATTERN_OPEN;
    return result;
}

/** `%1`: what the capture holds once more. */
static const char *match_capture_again(sl_pattern *self, const char *at, char digit)
{
    static const char *const wrong[] = {
        "invalid capture index %0", "invalid capture index %1", "invalid capture index %2",
        "invalid capture index %3", "invalid capture index %4", "invalid capture index %5",
        "invalid capture index %6", "invalid capture index %7", "invalid capture index %8",
        "invalid capture index %9",
    };
    int number = digit - '0';
    const sl_capture *capture = &self->captures[number > 0 ? number - 1 : 0];
    if (number == 0 || number > self->count || capture->length == PATTERN_OPEN)
        return set_wrong(self, wrong[number]);
    size_t length = capture->length; /* PATTERN_POSITION is longer than any subject: as in Lua */
    if ((size_t)(self->subject_end - at) < length || !take_steps(self, length))
        return NULL;
    return memcmp(capture->start, at, length) == 0 ? at + length : NULL;
}

/* ---- what begins with a % ---- */

/** `%bxy`; `p` at the x. */
static const char *match_balance(sl_pattern *self, const char *at, const char *p)
{
    if (p + 1 >= self->pattern_end)
        return set_wrong(self, "malformed pattern (missing arguments to '%b')");
    if (at >= self->subject_end || *at != *p)
        return NULL;
    int level = 1;
    while (++at < self->subject_end && take_steps(self, 1)) {
        if (*at == p[1]) {
            if (--level == 0)
                return at + 1;
        } else if (*at == *p) {
            level++;
        }
    }
    return NULL;
}

/** `%f[set]`; `p` at the set. Where it matches: behind the set. */
static const char *match_frontier(sl_pattern *self, const char *at, const char *p)
{
    if (p >= self->pattern_end || *p != '[')
        return set_wrong(self, "missing '[' after '%f' in pattern");
    const char *end = item_end(self, p);
    if (!end || !take_steps(self, (size_t)(end - p)))
        return NULL;
    int before = at == self->subject ? 0 : (unsigned char)at[-1];
    int here = at < self->subject_end ? (unsigned char)*at : 0;
    return !set_has(p, end - 1, before) && set_has(p, end - 1, here) ? end : NULL;
}

/** Moves both on behind a `%b`, `%f` or `%1`; 0: it is another item, -1: no match. */
static int match_escape(sl_pattern *self, const char **at, const char **p)
{
    char kind = *p + 1 < self->pattern_end ? (*p)[1] : '\0';
    if (kind == 'b') {
        *at = match_balance(self, *at, *p + 2);
        *p += 4;
        return *at ? 1 : -1;
    }
    if (kind == 'f') {
        *p = match_frontier(self, *at, *p + 2);
        return *p ? 1 : -1;
    }
    if (kind < '0' || kind > '9')
        return 0;
    *at = match_capture_again(self, *at, kind);
    *p += 2;
    return *at ? 1 : -1;
}

/* ---- the rest of a pattern ---- */

static const char *match_rest(sl_pattern *self, const char *at, const char *p)
{
    while (p < self->pattern_end) {
        if (!take_steps(self, 1))
            return NULL;
        if (*p == '(' && p + 1 < self->pattern_end && p[1] == ')')
            return open_capture(self, at, p + 2, PATTERN_POSITION);
        if (*p == '(')
            return open_capture(self, at, p + 1, PATTERN_OPEN);
        if (*p == ')')
            return close_capture(self, at, p + 1);
        if (*p == '$' && p + 1 == self->pattern_end)
            return at == self->subject_end ? at : NULL;
        int moved = *p == '%' ? match_escape(self, &at, &p) : 0;
        if (moved < 0)
            return NULL;
        if (moved > 0)
            continue;
        const char *end = item_end(self, p);
        if (!end)
            return NULL;
        char how = end < self->pattern_end ? *end : '\0';
        if (how == '*')
            return match_most(self, at, p, end);
        if (how == '-')
            return match_least(self, at, p, end);
        bool has = item_has(self, p, end, at);
        if (how == '+')
            return has ? match_most(self, at + 1, p, end) : NULL;
        if (how == '?') {
            const char *result = has ? match_here(self, at + 1, end + 1) : NULL;
            if (result)
                return result;
            p = end + 1;
            continue;
        }
        if (!has)
            return NULL;
        at++;
        p = end;
    }
    return at;
}

static const char *match_here(sl_pattern *self, const char *at, const char *p)
{
    if (self->wrong)
        return NULL;
    if (self->depth == PATTERN_DEPTH)
        return set_wrong(self, "pattern too complex");
    self->depth++;
    const char *result = match_rest(self, at, p);
    self->depth--;
    return self->wrong ? NULL : result;
}

const char *sl_pattern_match(sl_pattern *self, const char *at)
{
    self->depth = 0;
    self->count = 0;
    return take_steps(self, 1) ? match_here(self, at, self->pattern) : NULL;
}

bool sl_pattern_is_plain(const char *pattern, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (pattern[i] != '\0' && strchr("^$*+?.([%-", pattern[i]))
            return false;
    return true;
}
