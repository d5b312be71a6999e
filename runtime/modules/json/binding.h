/* SPDX-License-Identifier: MIT */
/* What the files of the binding share: the functions that Lua calls, and how they read options. */
#ifndef SL_JSON_BINDING_H
#define SL_JSON_BINDING_H

#include "json.h"

/**
 * Pushes decode: (text [, options]) -> value, or nil and what the function at `fail` makes of the
 * text, a message and an offset; without one (nil), nil, message and offset. The function at
 * `check`, or nil, is given the options.
 */
void sl_json_decode_push(lua_State *L, int check, int fail);
/** Pushes encode: (value [, options]) -> text. It raises. */
void sl_json_encode_push(lua_State *L, int check);

/** Pushes members, see members.c. */
void sl_json_members_push(lua_State *L);

/** Raises unless the value at `index` is a table; gives it to the function at `check`, if any. */
void sl_json_options_check(lua_State *L, int index, int check);
bool sl_json_option_flag(lua_State *L, int index, const char *name);
/** The option "max_depth", or SL_JSON_DEPTH. */
size_t sl_json_option_depth(lua_State *L, int index);
/** The option "invalid_utf8": whether it is "error" rather than "replace". */
bool sl_json_option_strict(lua_State *L, int index, bool otherwise);

/**
 * Memory for one call from Lua: the first bytes on the C stack, the rest in a userdata, so that an
 * error that jumps out of the call leaks nothing.
 */
typedef struct sl_json_scratch {
    sl_json_buffer buffer;
    lua_State *L;
    /** The slot of L's stack that holds the userdata, nil until it is needed. */
    int slot;
    /** Where a block of moderate size goes between calls: a stack or upvalue index. */
    int keeper;
    char first[2048];
} sl_json_scratch;

/** Pushes a keeper: fresh pages for every large text cost more than the text. */
void sl_json_keeper_push(lua_State *L);
/** Takes over the slot `slot`. The scratch must stay in place. */
void sl_json_scratch_init(sl_json_scratch *scratch, lua_State *L, int slot, int keeper);
/** Gives back at once what the collector would free later; idempotent. */
void sl_json_scratch_fini(sl_json_scratch *scratch);

#endif
