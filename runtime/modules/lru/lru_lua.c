/* SPDX-License-Identifier: MIT */
/* Lua's view of the LRU: sluice.core.lru. Keys and values are strings, copied in and out. */
#include "lru.h"

#include "../../core/core.h"

#include <math.h>

LUAMOD_API int luaopen_sluice_core_lru(lua_State *L);

static const char lru_type[] = "sluice.lru";
static const char lru_cursor_type[] = "sluice.lru.cursor";

/* User values: none. What it holds is taken from the state's allocator, and so counted by its
 * memory limit, not by its collector. */
typedef struct lru_object {
    sl_lru lru;
    int64_t lifetime;
    bool open;
} lru_object;

/* Seconds to microseconds, rounded down: no entry outlives them. */
static int64_t lru_lifetime(lua_State *L, int index)
{
    lua_Number seconds = luaL_checknumber(L, index);
    luaL_argcheck(L, seconds > 0, index, "a number of seconds above 0 expected");
    return seconds < 1e12 ? (int64_t)(seconds * 1e6) : SL_LRU_NEVER;
}

static size_t lru_check_bound(lua_State *L, int index)
{
    lua_Integer bound = luaL_optinteger(L, index, LUA_MAXINTEGER);
    luaL_argcheck(L, bound >= 1, index, "an integer of at least 1 expected");
    return (size_t)bound;
}

/* new(max_entries, max_bytes, ttl), each of which may be nil */
static int l_lru_new(lua_State *L)
{
    size_t max_entries = lru_check_bound(L, 1), max_bytes = lru_check_bound(L, 2);
    int64_t lifetime = lua_isnoneornil(L, 3) ? SL_LRU_NEVER : lru_lifetime(L, 3);
    lru_object *object = lua_newuserdatauv(L, sizeof *object, 0);
    void *user;
    lua_Alloc alloc = lua_getallocf(L, &user);
    sl_lru_init(&object->lru, max_entries, max_bytes, alloc, user);
    object->lifetime = lifetime;
    object->open = true;
    luaL_setmetatable(L, lru_type);
    return 1;
}

static lru_object *lru_check(lua_State *L)
{
    lru_object *object = luaL_checkudata(L, 1, lru_type);
    if (!object->open)
        luaL_error(L, "the cache was closed with its state");
    return object;
}

static sl_lru_bytes lru_check_bytes(lua_State *L, int index)
{
    sl_lru_bytes bytes;
    luaL_checktype(L, index, LUA_TSTRING);
    bytes.data = lua_tolstring(L, index, &bytes.size);
    return bytes;
}

static void lru_push(lua_State *L, sl_lru_bytes bytes)
{
    lua_pushlstring(L, bytes.data, bytes.size);
}

/* lru:get(key) -> value | nil */
static int l_lru_get(lua_State *L)
{
    lru_object *object = lru_check(L);
    sl_lru_bytes value;
    if (sl_lru_get(&object->lru, sl_now_running(L), lru_check_bytes(L, 2), &value))
        lru_push(L, value);
    else
        lua_pushnil(L);
    return 1;
}

/* lru:set(key, value [, ttl]) -> boolean: false when it is larger than the cache */
static int l_lru_set(lua_State *L)
{
    lru_object *object = lru_check(L);
    sl_lru_bytes key = lru_check_bytes(L, 2), value = lru_check_bytes(L, 3);
    int64_t lifetime = lua_isnoneornil(L, 4) ? object->lifetime : lru_lifetime(L, 4);
    sl_lru_status status = sl_lru_set(&object->lru, sl_now_running(L), key, value, lifetime);
    if (status == SL_LRU_NO_MEMORY)
        return luaL_error(L, "not enough memory");
    lua_pushboolean(L, status == SL_LRU_STORED);
    return 1;
}

/* lru:delete(key) -> whether it was there */
static int l_lru_delete(lua_State *L)
{
    lru_object *object = lru_check(L);
    lua_pushboolean(L, sl_lru_delete(&object->lru, sl_now_running(L), lru_check_bytes(L, 2)));
    return 1;
}

static int l_lru_clear(lua_State *L)
{
    sl_lru_clear(&lru_check(L)->lru);
    return 0;
}

static void lru_set_count(lua_State *L, const char *name, uint64_t count)
{
    lua_pushinteger(L, (lua_Integer)count);
    lua_setfield(L, -2, name);
}

static void lru_set_bound(lua_State *L, const char *name, size_t bound)
{
    if (bound != (size_t)LUA_MAXINTEGER)
        lru_set_count(L, name, bound);
}

static int l_lru_stats(lua_State *L)
{
    sl_lru *lru = &lru_check(L)->lru;
    sl_lru_advance(lru, sl_now_running(L));
    lua_createtable(L, 0, 9);
    lru_set_count(L, "entries", lru->entries);
    lru_set_count(L, "bytes", lru->bytes);
    lru_set_bound(L, "max_entries", lru->max_entries);
    lru_set_bound(L, "max_bytes", lru->max_bytes);
    lru_set_count(L, "hits", lru->hits);
    lru_set_count(L, "misses", lru->misses);
    lru_set_count(L, "stored", lru->stored);
    lru_set_count(L, "evicted", lru->evicted);
    lru_set_count(L, "expired", lru->expired);
    return 1;
}

static int l_lru_tostring(lua_State *L)
{
    lru_object *object = luaL_checkudata(L, 1, lru_type);
    lua_pushfstring(L, "sluice.lru: %I entries, %I bytes", (LUAI_UACINT)object->lru.entries,
                    (LUAI_UACINT)object->lru.bytes);
    return 1;
}

static int l_lru_gc(lua_State *L)
{
    lru_object *object = luaL_checkudata(L, 1, lru_type);
    sl_lru_fini(&object->lru);
    object->open = false;
    return 0;
}

/* ---- iteration ---- */

static int l_lru_next(lua_State *L)
{
    sl_lru_cursor *cursor = luaL_checkudata(L, 1, lru_cursor_type);
    sl_lru_bytes key, value;
    if (!sl_lru_cursor_next(cursor, sl_now_running(L), &key, &value)) {
        lua_pushnil(L);
        return 1;
    }
    lru_push(L, key);
    lru_push(L, value);
    return 2;
}

static int l_lru_pairs(lua_State *L)
{
    lru_object *object = lru_check(L);
    sl_lru_cursor *cursor;
    lua_pushcfunction(L, l_lru_next);
    cursor = lua_newuserdatauv(L, sizeof *cursor, 1);
    cursor->lru = NULL;
    luaL_setmetatable(L, lru_cursor_type);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    sl_lru_cursor_start(cursor, &object->lru, sl_now_running(L));
    lua_pushnil(L);
    lua_pushvalue(L, -2);
    return 4;
}

static int l_lru_cursor_close(lua_State *L)
{
    sl_lru_cursor_stop(luaL_checkudata(L, 1, lru_cursor_type));
    return 0;
}

static const luaL_Reg lru_methods[] = {
    {"get", l_lru_get},     {"set", l_lru_set},     {"delete", l_lru_delete},
    {"clear", l_lru_clear}, {"stats", l_lru_stats}, {NULL, NULL},
};

static const luaL_Reg lru_metamethods[] = {
    {"__pairs", l_lru_pairs},
    {"__tostring", l_lru_tostring},
    {"__gc", l_lru_gc},
    {NULL, NULL},
};

static const luaL_Reg lru_cursor_metamethods[] = {
    {"__close", l_lru_cursor_close},
    {"__gc", l_lru_cursor_close},
    {NULL, NULL},
};

static const luaL_Reg lru_functions[] = {
    {"new", l_lru_new},
    {NULL, NULL},
};

int luaopen_sluice_core_lru(lua_State *L)
{
    if (luaL_newmetatable(L, lru_type)) {
        luaL_setfuncs(L, lru_metamethods, 0);
        luaL_newlib(L, lru_methods);
        lua_setfield(L, -2, "__index");
    }
    if (luaL_newmetatable(L, lru_cursor_type))
        luaL_setfuncs(L, lru_cursor_metamethods, 0);
    luaL_newlib(L, lru_functions);
    return 1;
}
