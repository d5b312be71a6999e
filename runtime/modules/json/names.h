/* SPDX-License-Identifier: MIT */
/*
 * A small cache of keys, because the same few come in every text: a hit costs three comparisons
 * where making the string would hash and look up each byte of it.
 */
#ifndef SL_JSON_NAMES_H
#define SL_JSON_NAMES_H

#include "json.h"
#include "plain.h"

enum {
    SL_JSON_NAMES = 128,
    /** The shortest and the longest text whose keys and lengths three words hold. */
    SL_JSON_NAME_LONGEST = 24,
    /** Keys that one text may bring in: one with many different keys must not wipe out the rest. */
    SL_JSON_NAMES_A_TEXT = 64,
};

/** What one place holds: all the bytes of the key, overlapping. */
typedef struct sl_json_name {
    uint64_t first, middle, last;
    size_t length;
} sl_json_name;

/** Pushes the cache (a userdata), and its strings (a table): the upvalues of a decoder. */
void sl_json_names_push(lua_State *L);

/** Eight bytes can be read at `text`, though the key may be shorter. */
static inline sl_json_name sl_json_name_of(const char *text, size_t length)
{
    sl_json_name name = {sl_json_load(text), 0, 0, length};
    if (length < 8) {
        name.first &= ~(UINT64_MAX << (length * 8));
    } else {
        name.last = sl_json_load(text + length - 8);
        name.middle = length > 16 ? sl_json_load(text + 8) : 0;
    }
    return name;
}

static inline size_t sl_json_name_place(const sl_json_name *name)
{
    uint64_t mixed = name->first ^ name->middle * 3 ^ name->last * 5 ^ name->length;
    return (size_t)((mixed * UINT64_C(0x9E3779B97F4A7C15)) >> 57);
}

static inline bool sl_json_name_equals(const sl_json_name *a, const sl_json_name *b)
{
    return a->first == b->first && a->last == b->last && a->middle == b->middle &&
           a->length == b->length;
}

#endif
