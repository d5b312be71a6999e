/* SPDX-License-Identifier: MIT */
/* URLs for Lua; a part of the binding. */
#ifndef SL_HTTP_URL_LUA_H
#define SL_HTTP_URL_LUA_H

#include "core/core.h"

/** A Lua function: (base, reference) gives the absolute URL, whether its origin is the base's,
 * whether it leaves https; or nil and why it is no URL to go to. */
int sl_http_join_lua(lua_State *L);

#endif
