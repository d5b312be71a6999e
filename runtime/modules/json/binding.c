/* SPDX-License-Identifier: MIT */
/*
 * sluice.core.json: encode, decode, array_metatable, null, and codec, which makes an encode and a
 * decode whose options are checked, and whose errors are made, by functions of the caller.
 */
#include "binding.h"

#include <lauxlib.h>

#define JSON_ARRAY "sluice.json.array"

void sl_json_push_array_metatable(lua_State *L)
{
    luaL_newmetatable(L, JSON_ARRAY);
}

void sl_json_options_check(lua_State *L, int index, int check)
{
    if (!lua_isnil(L, check)) {
        lua_pushvalue(L, check);
        lua_pushvalue(L, index);
        lua_call(L, 1, 0);
    }
    luaL_checktype(L, index, LUA_TTABLE);
}

bool sl_json_option_flag(lua_State *L, int index, const char *name)
{
    bool flag;
    lua_getfield(L, index, name);
    flag = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return flag;
}

size_t sl_json_option_depth(lua_State *L, int index)
{
    int is_integer;
    lua_Integer depth = SL_JSON_DEPTH;
    if (lua_getfield(L, index, "max_depth") != LUA_TNIL) {
        depth = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer || depth < 1 || depth > SL_JSON_DEPTH_LIMIT)
            luaL_argerror(L, index, "max_depth must be an integer from 1 to 100000");
    }
    lua_pop(L, 1);
    return (size_t)depth;
}

bool sl_json_option_strict(lua_State *L, int index, bool otherwise)
{
    bool strict = otherwise;
    if (lua_getfield(L, index, "invalid_utf8") != LUA_TNIL) {
        const char *what = lua_tostring(L, -1);
        strict = what != NULL && strcmp(what, "error") == 0;
        if (!strict && (what == NULL || strcmp(what, "replace") != 0))
            luaL_argerror(L, index, "invalid_utf8 must be \"error\" or \"replace\"");
    }
    lua_pop(L, 1);
    return strict;
}

/* codec(encode_check, decode_check, decode_fail) -> encode, decode; each may be nil */
static int l_json_codec(lua_State *L)
{
    lua_settop(L, 3);
    sl_json_encode_push(L, 1);
    sl_json_decode_push(L, 2, 3);
    return 2;
}

static const luaL_Reg json_functions[] = {
    {"codec", l_json_codec},
    {NULL, NULL},
};

int luaopen_sluice_core_json(lua_State *L)
{
    lua_settop(L, 0);
    luaL_newlib(L, json_functions);
    lua_pushnil(L);
    sl_json_encode_push(L, 2);
    lua_setfield(L, 1, "encode");
    sl_json_decode_push(L, 2, 2);
    lua_setfield(L, 1, "decode");
    sl_json_members_push(L);
    lua_setfield(L, 1, "members");
    sl_json_push_array_metatable(L);
    lua_setfield(L, 1, "array_metatable");
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, 1, "null");
    lua_settop(L, 1);
    return 1;
}
