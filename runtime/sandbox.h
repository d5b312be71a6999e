/* SPDX-License-Identifier: MIT */
/* A Lua state for scripts of strangers: nothing in it runs for long or reaches the library's own.
 */
#ifndef SL_SANDBOX_H
#define SL_SANDBOX_H

#include <lua.h>

/**
 * After sl_capabilities_apply, and after the modules that the runtime itself needs are loaded.
 * Embedded Lua files find what is taken from scripts here by sl_sandbox_push_environment. May raise
 * for want of memory.
 */
void sl_sandbox_apply(lua_State *L, unsigned capabilities);
/** Pushes the globals of the embedded library where they are not those of scripts, else nil. */
void sl_sandbox_push_environment(lua_State *L);
/** Puts the bounded functions into the table at the top, which is `string`. */
void sl_pattern_install(lua_State *L);

#endif
