/* SPDX-License-Identifier: MIT */
/* Functions of Lua's own libraries that reach outside: refused where the host did not grant it. */
#include "capabilities.h"

#include "core/core.h"
#include "embedded.h"

#include <lualib.h>
#include <string.h>

enum {
    /* Loading machine code is everything that a process may do, as far as we can tell. */
    CAN_LOAD_LIBRARIES = SL_CAN_READ_FILES | SL_CAN_SPAWN_PROCESSES,
    /* package.searchers: preload, the embedded library, then Lua files, then C libraries. */
    SEARCHERS_WITHOUT_FILES = 2,
    SEARCHERS_WITHOUT_LIBRARIES = 3,
};

static const struct guarded {
    const char *library, *name;
    unsigned capability;
} guarded_functions[] = {
    {"os", "execute", SL_CAN_SPAWN_PROCESSES},  {"os", "remove", SL_CAN_WRITE_FILES},
    {"os", "rename", SL_CAN_WRITE_FILES},       {"os", "tmpname", SL_CAN_WRITE_FILES},
    {"os", "setlocale", SL_CAN_EXIT}, /* the locale is the process's, as its end is */
    {"io", "popen", SL_CAN_SPAWN_PROCESSES},    {"io", "tmpfile", SL_CAN_WRITE_FILES},
    {"io", "input", SL_CAN_READ_FILES},         {"io", "read", SL_CAN_READ_FILES},
    {"io", "output", SL_CAN_WRITE_FILES},       {"io", "lines", SL_CAN_READ_FILES},
    {"package", "loadlib", CAN_LOAD_LIBRARIES}, {"package", "searchpath", SL_CAN_READ_FILES},
    {"_G", "dofile", SL_CAN_READ_FILES},        {"_G", "loadfile", SL_CAN_READ_FILES},
};

static int l_refused(lua_State *L)
{
    return luaL_error(L, "%s is not allowed here: the host did not grant this capability",
                      lua_tostring(L, lua_upvalueindex(1)));
}

/* Upvalue: the stock function. */
static int l_open_by_mode(lua_State *L)
{
    const char *mode = luaL_optstring(L, 2, "r");
    unsigned needed = strpbrk(mode, "r+") ? SL_CAN_READ_FILES : 0;
    if (strpbrk(mode, "wa+"))
        needed |= SL_CAN_WRITE_FILES;
    sl_require_capability(L, needed, "io.open");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

/* Upvalue: the stock function. Bytecode that nobody checked can crash the process. */
static int l_load_text(lua_State *L)
{
    luaL_checkany(L, 1);
    if (lua_gettop(L) < 3)
        lua_settop(L, 3);
    if (strchr(luaL_optstring(L, 3, "bt"), 't')) {
        lua_pushliteral(L, "t");
        lua_replace(L, 3);
    } else {
        lua_pushnil(L);
        lua_pushliteral(L, "load: only text is allowed here");
        return 2;
    }
    /* chunks of that name are not sliced */
    if (strncmp(luaL_optstring(L, 2, ""), sl_library_source, strlen(sl_library_source)) == 0)
        return luaL_argerror(L, 2, "a chunk name of the library's");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

static void wrap_function(lua_State *L, const char *library, const char *name, lua_CFunction f)
{
    lua_getglobal(L, library);
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, f, 1);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

static void keep_searchers(lua_State *L, lua_Integer count)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "searchers");
    for (lua_Integer i = luaL_len(L, -1); i > count; i--) {
        lua_pushnil(L);
        lua_rawseti(L, -2, i);
    }
    lua_pop(L, 2);
}

/* Without the names that the host does not list. */
static int l_getenv(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    sl_require_capability(L, SL_CAN_READ_ENVIRONMENT, "os.getenv");
    lua_pushstring(L, sl_environment_get(L, name));
    return 1;
}

/** In the place of `debug`, which reaches into every function: what reports of errors need. */
static void reduce_debug(lua_State *L)
{
    static const char *const kept[] = {"getinfo", "traceback"};
    lua_getglobal(L, "debug");
    int stock = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, stock)) {
        bool keep = false;
        for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
            keep = keep || strcmp(lua_tostring(L, -2), kept[i]) == 0;
        lua_pop(L, 1);
        if (keep)
            continue;
        lua_pushvalue(L, -1);
        lua_pushnil(L);
        lua_settable(L, stock);
    }
    lua_pop(L, 1);
}

void sl_capabilities_apply(lua_State *L, unsigned capabilities, bool text_only)
{
    wrap_function(L, "os", "getenv", l_getenv);
    if (!(capabilities & SL_CAN_DEBUG))
        reduce_debug(L);
    for (size_t i = 0; i < sizeof guarded_functions / sizeof guarded_functions[0]; i++) {
        const struct guarded *guarded = &guarded_functions[i];
        if ((capabilities & guarded->capability) == guarded->capability)
            continue;
        lua_getglobal(L, guarded->library);
        lua_pushfstring(L, "%s.%s", guarded->library, guarded->name);
        lua_pushcclosure(L, l_refused, 1);
        lua_setfield(L, -2, guarded->name);
        lua_pop(L, 1);
    }
    if ((capabilities & CAN_LOAD_LIBRARIES) != CAN_LOAD_LIBRARIES)
        keep_searchers(L, SEARCHERS_WITHOUT_LIBRARIES);
    if (!(capabilities & SL_CAN_WRITE_FILES) || !(capabilities & SL_CAN_READ_FILES))
        wrap_function(L, "io", "open", l_open_by_mode);
    if (text_only || !(capabilities & SL_CAN_READ_FILES))
        wrap_function(L, "_G", "load", l_load_text);
    if (text_only)
        keep_searchers(L, SEARCHERS_WITHOUT_FILES);
    if (capabilities & SL_CAN_READ_FILES)
        return;
    keep_searchers(L, SEARCHERS_WITHOUT_FILES);
    lua_getglobal(L, "io");
    lua_pushnil(L);
    lua_setfield(L, -2, "stdin"); /* reading it would hold up the host */
    lua_pop(L, 1);
}
