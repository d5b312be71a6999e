/* SPDX-License-Identifier: MIT */
/*
 * require, as Lua's own but for one thing: the top level of a module can wait, because loaders are
 * called with a continuation. Tasks that want a module that is being loaded wait for it.
 */
#include "internal.h"

static const char loading_key[] = "sluice.loading";

/** A module that is being loaded: who does it, who waits. */
typedef struct loading {
    sl_waitlist waiters;
    sl_task *loader;
} loading;

static void set_loading(lua_State *L, int value)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, loading_key);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, value);
    lua_settable(L, -3);
    lua_pop(L, 1);
}

/** Ends the load: the name at 1, the loading at 2. */
static void loaded(lua_State *L)
{
    loading *self = lua_touserdata(L, 2);
    lua_pushnil(L);
    set_loading(L, lua_gettop(L));
    lua_pop(L, 1);
    sl_waitlist_wake(&self->waiters, SIZE_MAX);
}

/** Leaves loader and data on the stack, or raises. Stack: name, loading. No luaL_Buffer: a long one
 * is a variable to be closed, and the stack below the loader is rearranged. */
static void find_loader(lua_State *L)
{
    if (lua_getfield(L, lua_upvalueindex(1), "searchers") != LUA_TTABLE)
        luaL_error(L, "'package.searchers' must be a table");
    lua_pushliteral(L, ""); /* at 4: what was tried */
    for (int i = 1;; i++) {
        if (lua_rawgeti(L, 3, i) == LUA_TNIL)
            luaL_error(L, "module '%s' not found:%s", lua_tostring(L, 1), lua_tostring(L, 4));
        lua_pushvalue(L, 1);
        lua_call(L, 1, 2);
        if (lua_isfunction(L, -2))
            return;
        lua_pop(L, 1);
        if (lua_isstring(L, -1)) {
            lua_pushvalue(L, 4);
            lua_pushliteral(L, "\n\t");
            lua_rotate(L, -3, 2);
            lua_concat(L, 3);
            lua_replace(L, 4);
        } else {
            lua_pop(L, 1);
        }
    }
}

/* Stack: name, loading, data, then the loader's result or the error. */
static int required(lua_State *L, int status, lua_KContext ctx)
{
    (void)ctx;
    if (status != LUA_OK && status != LUA_YIELD) {
        loaded(L);
        return lua_error(L);
    }
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_insert(L, 4);
    if (lua_isnil(L, 5)) {
        lua_pushvalue(L, 1);
        if (lua_gettable(L, 4) == LUA_TNIL) {
            lua_pop(L, 1);
            lua_pushboolean(L, 1);
        }
        lua_replace(L, 5);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 5);
    lua_settable(L, 4);
    loaded(L);
    lua_pushvalue(L, 5);
    lua_pushvalue(L, 3);
    return 2;
}

static int load_module(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    loading *self = lua_newuserdatauv(L, sizeof *self, 0);
    *self = (loading){.loader = core ? core->current : NULL};
    find_loader(L);
    lua_replace(L, 3); /* data in the place of searchers ... */
    lua_insert(L, 4);  /* ... and the loader above it */
    lua_settop(L, 4);
    set_loading(L, 2);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 3);
    int status = lua_pcallk(L, 2, 1, 0, 0, required);
    return required(L, status, 0);
}

static int l_require(lua_State *L);

static int waited(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    (void)ctx;
    lua_settop(L, 1);
    return l_require(L);
}

static int l_require(lua_State *L)
{
    luaL_checkstring(L, 1);
    lua_settop(L, 1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushvalue(L, 1);
    lua_gettable(L, 2);
    if (lua_toboolean(L, -1))
        return 1;
    lua_settop(L, 1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, loading_key);
    lua_pushvalue(L, 1);
    lua_gettable(L, 2);
    loading *other = lua_touserdata(L, -1);
    lua_settop(L, other ? 3 : 1);
    if (!other)
        return load_module(L);
    sl_core *core = sl_core_find(L);
    if (!core || other->loader == core->current)
        return luaL_error(L, "module '%s' requires itself, directly or through another one",
                          lua_tostring(L, 1));
    return sl_waitlist_wait(L, &other->waiters, "require of a module that is being loaded", 0,
                            waited);
}

void sl_require_install(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_pushcclosure(L, l_require, 1);
    lua_setglobal(L, "require");
}
