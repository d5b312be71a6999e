/* SPDX-License-Identifier: MIT */
/* Lua's view of the backoff engine: sluice.core.backoff. */
#include "backoff.h"

#include "../../core/core.h"

LUAMOD_API int luaopen_sluice_core_backoff(lua_State *L);

/* delay(attempt, base, cap, random) -> seconds */
static int l_backoff_delay(lua_State *L)
{
    lua_Integer attempt = luaL_checkinteger(L, 1);
    double base = luaL_checknumber(L, 2);
    double cap = luaL_checknumber(L, 3);
    double random = luaL_checknumber(L, 4);
    luaL_argcheck(L, base >= 0, 2, "seconds of at least 0 expected");
    luaL_argcheck(L, cap >= 0, 3, "seconds of at least 0 expected");
    luaL_argcheck(L, random >= 0 && random <= 1, 4, "a number from 0 to 1 expected");
    lua_pushnumber(L, sl_backoff_delay(attempt, base, cap, random));
    return 1;
}

/* retry_after(text, now) -> seconds | nil */
static int l_backoff_retry_after(lua_State *L)
{
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    double now = luaL_checknumber(L, 2);
    double seconds;
    if (sl_retry_after_parse(text, length, now, &seconds)) {
        lua_pushnumber(L, seconds);
    } else {
        lua_pushnil(L);
    }
    return 1;
}

/* decimal(text) -> number | nil */
static int l_backoff_decimal(lua_State *L)
{
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    double number;
    if (sl_retry_decimal_parse(text, length, &number)) {
        lua_pushnumber(L, number);
    } else {
        lua_pushnil(L);
    }
    return 1;
}

static const luaL_Reg backoff_functions[] = {
    {"decimal", l_backoff_decimal},
    {"delay", l_backoff_delay},
    {"retry_after", l_backoff_retry_after},
    {NULL, NULL},
};

int luaopen_sluice_core_backoff(lua_State *L)
{
    luaL_newlib(L, backoff_functions);
    return 1;
}
