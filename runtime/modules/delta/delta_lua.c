/* SPDX-License-Identifier: MIT */
/* sluice.core.delta: tells the chunk that only adds text, as nearly all of a chat stream do. */
#include "../../core/core.h"

LUAMOD_API int luaopen_sluice_core_delta(lua_State *L);

/* The names of fields, by the upvalues that hold them: to make strings of them for each chunk would
 * take as long as all else. */
enum {
    DELTA_ERROR = 1,
    DELTA_CHOICES,
    DELTA_INDEX,
    DELTA_DELTA,
    DELTA_CONTENT,
    DELTA_ROLE,
    DELTA_REASON,
    DELTA_LOGPROBS,
    DELTA_NAMES = DELTA_LOGPROBS,
};

static const char *const delta_names[] = {
    [DELTA_ERROR] = "error",          [DELTA_CHOICES] = "choices",   [DELTA_INDEX] = "index",
    [DELTA_DELTA] = "delta",          [DELTA_CONTENT] = "content",   [DELTA_ROLE] = "role",
    [DELTA_REASON] = "finish_reason", [DELTA_LOGPROBS] = "logprobs",
};

static int push_delta_field(lua_State *L, int index, int name)
{
    lua_pushvalue(L, lua_upvalueindex(name));
    return lua_rawget(L, index);
}

/** Not there, or JSON's null. */
static bool delta_is_absent(lua_State *L, int index, int name)
{
    int type = push_delta_field(L, index, name);
    bool absent = type == LUA_TNIL || (type == LUA_TLIGHTUSERDATA && !lua_touserdata(L, -1));
    lua_pop(L, 1);
    return absent;
}

static bool delta_is_first(lua_State *L, int choice)
{
    int type = push_delta_field(L, choice, DELTA_INDEX);
    bool first = type == LUA_TNIL || (type == LUA_TNUMBER && lua_tonumber(L, -1) == 0);
    lua_pop(L, 1);
    return first;
}

/** Nothing beside the content but a role. */
static bool delta_is_content(lua_State *L, int change)
{
    for (lua_pushnil(L); lua_next(L, change); lua_pop(L, 1)) {
        if (!lua_rawequal(L, -2, lua_upvalueindex(DELTA_CONTENT)) &&
            !lua_rawequal(L, -2, lua_upvalueindex(DELTA_ROLE)))
            return false;
    }
    return true;
}

/* plain(chunk) -> the text of a chunk that adds text to the first choice and nothing else; nil */
static int l_delta_plain(lua_State *L)
{
    enum { CHUNK = 1, CHOICES, CHOICE, CHANGE, CONTENT };
    lua_settop(L, CHUNK);
    if (!lua_istable(L, CHUNK) || push_delta_field(L, CHUNK, DELTA_CHOICES) != LUA_TTABLE ||
        lua_rawlen(L, CHOICES) != 1 || lua_rawgeti(L, CHOICES, 1) != LUA_TTABLE ||
        push_delta_field(L, CHOICE, DELTA_DELTA) != LUA_TTABLE ||
        push_delta_field(L, CHANGE, DELTA_CONTENT) != LUA_TSTRING || lua_rawlen(L, CONTENT) == 0)
        return 0;
    if (!delta_is_first(L, CHOICE) || !delta_is_absent(L, CHOICE, DELTA_REASON) ||
        !delta_is_absent(L, CHOICE, DELTA_LOGPROBS) || !delta_is_content(L, CHANGE) ||
        push_delta_field(L, CHUNK, DELTA_ERROR) != LUA_TNIL)
        return 0;
    lua_settop(L, CONTENT);
    return 1;
}

int luaopen_sluice_core_delta(lua_State *L)
{
    lua_createtable(L, 0, 1);
    for (int name = 1; name <= DELTA_NAMES; name++)
        lua_pushstring(L, delta_names[name]);
    lua_pushcclosure(L, l_delta_plain, DELTA_NAMES);
    lua_setfield(L, -2, "plain");
    return 1;
}
