/* SPDX-License-Identifier: MIT */
/* What a script may reach through Lua's own libraries. */
#ifndef SL_CAPABILITIES_H
#define SL_CAPABILITIES_H

#include <lua.h>

#include <stdbool.h>

/**
 * Replaces the functions of the standard library that need more than `capabilities` (SL_CAN_...,
 * together) by ones that raise. Takes the searchers of package.searchers that look for files away
 * as well; the first two stay. `text_only`: no bytecode, whatever is granted. May raise for want of
 * memory.
 */
void sl_capabilities_apply(lua_State *L, unsigned capabilities, bool text_only);

#endif
