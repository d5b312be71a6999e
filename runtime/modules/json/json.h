/* SPDX-License-Identifier: MIT */
/*
 * The JSON codec for other C code of the runtime: Lua values to JSON bytes.
 *
 * What Lua programs use is lua/sluice/json.lua; docs/json.md has the rules of the mapping.
 */
#ifndef SL_JSON_H
#define SL_JSON_H

#include "../../core/core.h"
#include "engine.h"

enum {
    /** Levels of arrays and objects, where nothing else is asked for. */
    SL_JSON_DEPTH = 1000,
    /** The most that may be asked for: each level takes two slots of Lua's stack. */
    SL_JSON_DEPTH_LIMIT = 100000,
};

typedef struct sl_json_encode_options {
    /** Keys in byte order: the same value is always the same bytes. */
    bool canonical;
    /** One member a line, two spaces a level; implies `canonical`. */
    bool pretty;
    /** Invalid UTF-8 is an error instead of U+FFFD. */
    bool strict_utf8;
    /** 0 means SL_JSON_DEPTH. */
    size_t max_depth;
} sl_json_encode_options;

/**
 * Appends the JSON form of the value at `index` to `out`.
 *
 * Returns 0. Where the value has no JSON form it returns -1 and pushes the reason, with the path
 * to the offending part ("messages[2].content: a function cannot be encoded"); `out` then holds
 * half of a text. The Lua stack is otherwise as before.
 *
 * It raises when Lua is out of memory, or when a `__tojson` of the value raises: call it protected
 * where that may not be, and free `out` (sl_json_buffer_init, sl_json_buffer_fini) in any case.
 * It does not yield. `options` NULL: the defaults.
 */
int sl_json_encode(lua_State *L, int index, const sl_json_encode_options *options,
                   sl_json_buffer *out);

/** Pushes the metatable that marks a table as an array. */
void sl_json_push_array_metatable(lua_State *L);

LUAMOD_API int luaopen_sluice_core_json(lua_State *L);

#endif
