/* SPDX-License-Identifier: MIT */
/* What the files of the binding share: the functions that Lua calls, and how they read options. */
#ifndef SL_JSON_BINDING_H
#define SL_JSON_BINDING_H

#include "json.h"

/** (text [, options]) -> value, or nil and what the fail hook makes of (text, message, offset). */
int sl_json_decode_call(lua_State *L);
/** (value [, options]) -> text; raises. */
int sl_json_encode_call(lua_State *L);

/** Raises unless the value at `index` is a table; gives it to the function at `check`, if any. */
void sl_json_options_check(lua_State *L, int index, int check);
bool sl_json_option_flag(lua_State *L, int index, const char *name);
/** The option "max_depth", or SL_JSON_DEPTH. */
size_t sl_json_option_depth(lua_State *L, int index);
/** The option "invalid_utf8": whether it is "error" rather than "replace". */
bool sl_json_option_strict(lua_State *L, int index, bool otherwise);

#endif
