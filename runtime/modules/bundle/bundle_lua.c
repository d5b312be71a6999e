/* SPDX-License-Identifier: MIT */
/* Lua's view of bundles: sluice.core.bundle. Internal: for the program and lua/sluice/bundle.lua.
 */
#include "bundle.h"

#include "../../core/core.h"
#include "../file/hash.h"

#include <string.h>
#include <unistd.h>

LUAMOD_API int luaopen_sluice_core_bundle(lua_State *L);

static const char bundle_type[] = "sluice.bundle", bundle_key[] = "sluice.bundle.current";

/* ---- reading ---- */

static int l_bundle_close(lua_State *L)
{
    sl_bundle_close(luaL_checkudata(L, 1, bundle_type));
    return 0;
}

/* Pushes the key of an entry among the places of all: its kind and its name. */
static void push_bundle_key(lua_State *L, const sl_bundle_entry *entry)
{
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    luaL_addchar(&buffer, entry->kind);
    luaL_addlstring(&buffer, entry->name, entry->name_length);
    luaL_pushresult(&buffer);
}

/* Stack: the bundle. Its user value is where each entry begins. */
static void index_bundle(lua_State *L, const sl_bundle *bundle)
{
    sl_bundle_entry entry;
    size_t at = 0, start = 0;
    lua_newtable(L);
    while (sl_bundle_next(bundle, &at, &entry) > 0) {
        push_bundle_key(L, &entry);
        lua_pushinteger(L, (lua_Integer)start);
        lua_settable(L, -3);
        start = at;
    }
    lua_setiuservalue(L, -2, 1);
}

/* open(offset, size, checksum) -> bundle | nil, text: the one behind the program that runs */
static int l_bundle_open(lua_State *L)
{
    sl_bundle_place place = {
        .offset = (uint64_t)luaL_checkinteger(L, 1),
        .size = (uint64_t)luaL_checkinteger(L, 2),
        .checksum = (uint64_t)luaL_checkinteger(L, 3),
    };
    char reason[SL_BUNDLE_REASON];
    sl_require_capability(L, SL_CAN_READ_FILES, "reading a file");
    sl_bundle *bundle = lua_newuserdatauv(L, sizeof *bundle, 1);
    memset(bundle, 0, sizeof *bundle);
    luaL_setmetatable(L, bundle_type);
    if (!sl_bundle_open(bundle, sl_bundle_program(), &place, reason)) {
        lua_pushnil(L);
        lua_pushstring(L, reason);
        return 2;
    }
    index_bundle(L, bundle);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, bundle_key);
    return 1;
}

/* current() -> the bundle that was opened, nil without one */
static int l_bundle_current(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, bundle_key);
    return 1;
}

/* bundle:read(kind, name) -> content | nil */
static int l_bundle_read(lua_State *L)
{
    const sl_bundle *bundle = luaL_checkudata(L, 1, bundle_type);
    sl_bundle_entry entry = {.kind = *luaL_checkstring(L, 2)};
    entry.name = luaL_checklstring(L, 3, &entry.name_length);
    lua_getiuservalue(L, 1, 1);
    push_bundle_key(L, &entry);
    if (lua_rawget(L, -2) == LUA_TNIL)
        return 1;
    size_t at = (size_t)lua_tointeger(L, -1);
    if (sl_bundle_next(bundle, &at, &entry) <= 0)
        return 0;
    lua_pushlstring(L, entry.content, entry.content_length);
    return 1;
}

/* bundle:names(kind) -> array, in the order of the file */
static int l_bundle_names(lua_State *L)
{
    const sl_bundle *bundle = luaL_checkudata(L, 1, bundle_type);
    const char *kind = luaL_checkstring(L, 2);
    sl_bundle_entry entry;
    lua_Integer count = 0;
    size_t at = 0;
    lua_newtable(L);
    while (sl_bundle_next(bundle, &at, &entry) > 0) {
        if (entry.kind != *kind)
            continue;
        lua_pushlstring(L, entry.name, entry.name_length);
        lua_rawseti(L, -2, ++count);
    }
    return 1;
}

/* ---- writing ---- */

/* program() -> the path of the program that runs */
static int l_bundle_program(lua_State *L)
{
    lua_pushstring(L, sl_bundle_program());
    return 1;
}

/* checksum(bytes) -> their XXH64 */
static int l_bundle_checksum(lua_State *L)
{
    size_t length;
    const char *bytes = luaL_checklstring(L, 1, &length);
    sl_hash hash;
    sl_hash_init(&hash);
    sl_hash_add(&hash, bytes, length);
    lua_pushinteger(L, (lua_Integer)sl_hash_value(&hash));
    return 1;
}

/* write(path, bytes...) -> true | nil, text: a program at `path`, whole or not at all */
static int l_bundle_write(lua_State *L)
{
    int count = lua_gettop(L), failure = 0;
    const char *path = luaL_checkstring(L, 1);
    for (int i = 2; i <= count; i++)
        luaL_checkstring(L, i);
    sl_require_capability(L, SL_CAN_WRITE_FILES, "writing a file");
    const char *beside = lua_pushfstring(L, "%s.new.%d", path, (int)getpid());
    int fd = sl_bundle_create(beside);
    if (fd < 0) {
        failure = -fd;
    } else {
        for (int i = 2; i <= count && !failure; i++) {
            size_t length;
            const char *bytes = lua_tolstring(L, i, &length);
            failure = sl_bundle_append(fd, bytes, length);
        }
        int last = sl_bundle_finish(fd, beside, failure ? NULL : path);
        failure = failure ? failure : last;
    }
    if (failure) {
        lua_pushnil(L);
        lua_pushstring(L, strerror(failure));
        return 2;
    }
    lua_pushboolean(L, true);
    return 1;
}

static const luaL_Reg bundle_functions[] = {
    {"open", l_bundle_open},   {"current", l_bundle_current},   {"program", l_bundle_program},
    {"write", l_bundle_write}, {"checksum", l_bundle_checksum}, {NULL, NULL},
};

static const luaL_Reg bundle_methods[] = {
    {"read", l_bundle_read},
    {"names", l_bundle_names},
    {NULL, NULL},
};

static const luaL_Reg bundle_metamethods[] = {
    {"__gc", l_bundle_close},
    {"__close", l_bundle_close},
    {NULL, NULL},
};

int luaopen_sluice_core_bundle(lua_State *L)
{
    if (luaL_newmetatable(L, bundle_type)) {
        luaL_setfuncs(L, bundle_metamethods, 0);
        luaL_newlib(L, bundle_methods);
        lua_setfield(L, -2, "__index");
    }
    luaL_newlib(L, bundle_functions);
    return 1;
}
