/* SPDX-License-Identifier: MIT */
/* Lua values to their canonical form. */
#ifndef SL_DIGEST_WALK_H
#define SL_DIGEST_WALK_H

#include "../../core/core.h"
#include "canonical.h"

/** Levels of arrays and objects, as many as the JSON codec writes. */
enum { SL_DIGEST_DEPTH = 1000 };

/**
 * Writes the value on top of the stack by the rules of docs/json.md, `__tojson` included, and takes
 * it off. False, with the stack in any state above `top`, where the value has no JSON form or is
 * nested too deeply. It raises without memory, and what a `__tojson` raises; it does not yield.
 *
 * `array_metatable` is the identity of the metatable that marks arrays. `skip` is the stack index
 * of a table whose keys are left out of the outermost object; 0: none.
 */
bool sl_digest_walk(lua_State *L, sl_canonical *out, const void *array_metatable, int skip);

#endif
