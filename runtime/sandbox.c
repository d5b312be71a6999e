/* SPDX-License-Identifier: MIT */
/*
 * What scripts of strangers get instead of Lua's own functions. A finalizer runs without hooks, so
 * none may be a script's; a call of C runs without hooks, so each that a script can make long is
 * bounded and counted; and what the library itself needs of io, os and debug is its alone.
 */
#include "sandbox.h"

#include "core/core.h"

#include <lauxlib.h>
#include <lualib.h>
#include <limits.h>
#include <string.h>

enum {
    /* Elements that one call may go through: about 20 ms of table.sort. */
    ELEMENTS_MOST = 1 << 20,
    /* Bytes that string.rep writes in the time of an instruction. */
    BYTES_OF_AN_INSTRUCTION = 64,
    /* An error that is caught; and one for each call on the stack. */
    INSTRUCTIONS_OF_AN_ERROR = 100,
    /* As many calls of C as Lua takes in each other. */
    PCALLS_MOST = 150,
};

static const char environment_key[] = "sluice.library_globals";

static int call_stock(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

/* ---- metatables: none with a finalizer of a script's ---- */

static int refuse_finalizer(lua_State *L, const char *where)
{
    return luaL_error(L, "%s: __gc is not allowed here: a finalizer cannot be stopped", where);
}

static int l_strict_setmetatable(lua_State *L)
{
    if (lua_istable(L, 2)) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL)
            return refuse_finalizer(L, "setmetatable");
        lua_pop(L, 1);
    }
    return call_stock(L);
}

/* Those of userdata are set by C, which would not see a __gc that a script has put there. */
static int l_strict_getmetatable(lua_State *L)
{
    luaL_checkany(L, 1);
    if (lua_type(L, 1) != LUA_TUSERDATA)
        return call_stock(L);
    lua_pushboolean(L, 0);
    return 1;
}

static bool is_gc(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TSTRING && strcmp(lua_tostring(L, index), "__gc") == 0;
}

static int l_strict_rawset(lua_State *L)
{
    return is_gc(L, 2) ? refuse_finalizer(L, "rawset") : call_stock(L);
}

static int l_locked_newindex(lua_State *L)
{
    if (is_gc(L, 2))
        return refuse_finalizer(L, "a metatable of the library's");
    lua_rawset(L, 1);
    return 0;
}

/** A metatable of tables that C sets, and that scripts can get hold of. */
static void lock_metatable(lua_State *L, const char *name)
{
    luaL_getmetatable(L, name);
    lua_createtable(L, 0, 2);
    lua_pushcfunction(L, l_locked_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
}

/* ---- calls that a script can make long ---- */

/** What a range from `first` to `last` has; raises where it is too much for one call. */
static lua_Unsigned count_elements(lua_State *L, lua_Integer first, lua_Integer last)
{
    lua_Unsigned count = last >= first ? (lua_Unsigned)last - (lua_Unsigned)first + 1 : 0;
    if (last >= first && (count == 0 || count > ELEMENTS_MOST))
        luaL_error(L, "too many elements for one call: at most %d", ELEMENTS_MOST);
    sl_count_instructions(L, count);
    return count;
}

static int l_bounded_sort(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Unsigned count = count_elements(L, 1, luaL_len(L, 1)), each = 0;
    for (lua_Unsigned n = count; n > 0; n /= 2)
        each++;
    sl_count_instructions(L, count * each);
    return call_stock(L);
}

/* table.insert and table.remove: what is behind the place moves. */
static int l_bounded_shift(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer last = luaL_len(L, 1);
    if (lua_gettop(L) > 1 && lua_isinteger(L, 2) && lua_tointeger(L, 2) > 0)
        count_elements(L, lua_tointeger(L, 2), last);
    return call_stock(L);
}

static int l_bounded_move(lua_State *L)
{
    count_elements(L, luaL_checkinteger(L, 2), luaL_checkinteger(L, 3));
    return call_stock(L);
}

static int l_bounded_concat(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer last = lua_isnoneornil(L, 4) ? luaL_len(L, 1) : luaL_checkinteger(L, 4);
    count_elements(L, luaL_optinteger(L, 3, 1), last);
    return call_stock(L);
}

static int l_bounded_unpack(lua_State *L)
{
    lua_Integer last = lua_isnoneornil(L, 3) ? luaL_len(L, 1) : luaL_checkinteger(L, 3);
    count_elements(L, luaL_optinteger(L, 2, 1), last);
    return call_stock(L);
}

/* The stock one counts to n where there is nothing to write. */
static int l_bounded_rep(lua_State *L)
{
    size_t size = 0, separator = 0;
    luaL_checklstring(L, 1, &size);
    lua_Integer count = luaL_checkinteger(L, 2);
    luaL_optlstring(L, 3, "", &separator);
    if (count <= 0 || size + separator == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    sl_count_instructions(L, (lua_Unsigned)count + size / BYTES_OF_AN_INSTRUCTION);
    return call_stock(L);
}

static int l_counting_collectgarbage(lua_State *L)
{
    if (strcmp(luaL_optstring(L, 1, "collect"), "count") == 0)
        return call_stock(L);
    lua_pushinteger(L, 0); /* the collector is the host's: a full turn holds up a frame */
    return 1;
}

/* ---- errors that are caught: each is a walk over the whole stack, and the stack may be deep ----
 */

/** Nested pcalls of a coroutine: Lua itself forgets how deep its calls of C were when it goes on
 * after an error in a coroutine. A state of ours has this space for us. */
static unsigned *pcall_depth(lua_State *L)
{
    return lua_getextraspace(L);
}

/** About how many calls are on the stack of the coroutine. */
static uint64_t stack_depth(lua_State *L)
{
    lua_Debug frame;
    int depth = 16;
    while (depth < INT_MAX / 2 && lua_getstack(L, depth, &frame))
        depth *= 2;
    return (uint64_t)depth;
}

static void enter_pcall(lua_State *L)
{
    if (*pcall_depth(L) >= PCALLS_MOST)
        luaL_error(L, "more than %d pcalls in each other", PCALLS_MOST);
    ++*pcall_depth(L);
}

static int counted_pcall_done(lua_State *L, int status, lua_KContext extra)
{
    if (*pcall_depth(L) > 0)
        --*pcall_depth(L);
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - (int)extra;
    sl_hooks_are_on(L);
    sl_count_instructions(L, INSTRUCTIONS_OF_AN_ERROR + stack_depth(L));
    lua_pushboolean(L, 0);
    lua_pushvalue(L, -2);
    return 2;
}

static int l_counted_pcall(lua_State *L)
{
    luaL_checkany(L, 1);
    enter_pcall(L);
    lua_pushboolean(L, 1);
    lua_insert(L, 1);
    int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, counted_pcall_done);
    return counted_pcall_done(L, status, 0);
}

/* Upvalue: the handler of the script. */
static int l_stoppable_handler(lua_State *L)
{
    if (sl_hooks_may_be_off(L))
        return 1;
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

/* Stack of the call: f, handler, true, f, arguments. */
static int l_counted_xpcall(lua_State *L)
{
    int arguments = lua_gettop(L) - 2;
    luaL_checktype(L, 2, LUA_TFUNCTION);
    enter_pcall(L);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, l_stoppable_handler, 1);
    lua_replace(L, 2);
    lua_pushboolean(L, 1);
    lua_pushvalue(L, 1);
    lua_rotate(L, 3, 2);
    int status = lua_pcallk(L, arguments, LUA_MULTRET, 2, 2, counted_pcall_done);
    return counted_pcall_done(L, status, 2);
}

/* ---- what goes elsewhere ---- */

static int l_log_print(lua_State *L)
{
    int count = lua_gettop(L);
    luaL_Buffer line;
    luaL_buffinit(L, &line);
    for (int i = 1; i <= count; i++) {
        if (i > 1)
            luaL_addchar(&line, '\t');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&line);
    }
    luaL_pushresult(&line);
    size_t length;
    const char *text = lua_tolstring(L, -1, &length);
    sl_log(L, text, length);
    return 0;
}

static int required_public(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    (void)ctx;
    return lua_gettop(L);
}

/* Upvalue: the require of the library. */
static int l_public_require(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    static const char internal[] = "sluice.core.";
    if (strncmp(name, internal, sizeof internal - 1) == 0)
        return luaL_error(L, "module '%s' is not for scripts here", name);
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_callk(L, 1, LUA_MULTRET, 0, required_public);
    return required_public(L, LUA_OK, 0);
}

/* ---- putting it together ---- */

static const struct replaced {
    const char *library, *name;
    lua_CFunction function;
} replaced_functions[] = {
    {"_G", "setmetatable", l_strict_setmetatable},
    {"_G", "getmetatable", l_strict_getmetatable},
    {"_G", "rawset", l_strict_rawset},
    {"_G", "pcall", l_counted_pcall},
    {"_G", "xpcall", l_counted_xpcall},
    {"_G", "collectgarbage", l_counting_collectgarbage},
    {"_G", "print", l_log_print},
    {"_G", "require", l_public_require},
    {"string", "rep", l_bounded_rep},
    {"table", "sort", l_bounded_sort},
    {"table", "insert", l_bounded_shift},
    {"table", "remove", l_bounded_shift},
    {"table", "move", l_bounded_move},
    {"table", "concat", l_bounded_concat},
    {"table", "unpack", l_bounded_unpack},
};

/** From a library that is not for scripts, with what must be granted for it to be there. */
static const struct hidden {
    const char *name;
    unsigned capabilities;
} hidden_libraries[] = {
    {"io", SL_CAN_READ_FILES | SL_CAN_WRITE_FILES},
    {"os", SL_CAN_READ_ENVIRONMENT | SL_CAN_WRITE_FILES | SL_CAN_SPAWN_PROCESSES | SL_CAN_EXIT},
    {"debug", 0},
    {"package", 0},
    {"dofile", 0},
    {"loadfile", 0},
};

/** Copies field `name` of the table at `from` into the table at the top. */
static void copy_field(lua_State *L, int from, const char *name)
{
    lua_getfield(L, from, name);
    lua_setfield(L, -2, name);
}

/** Pushes the globals of the library: those of scripts, and beside them what scripts do not see. */
static void push_library_globals(lua_State *L)
{
    lua_pushglobaltable(L);
    int globals = lua_gettop(L);
    lua_createtable(L, 0, 8);
    copy_field(L, globals, "io");
    copy_field(L, globals, "os");
    copy_field(L, globals, "package");
    copy_field(L, globals, "require");
    lua_getfield(L, globals, "debug");
    lua_createtable(L, 0, 2);
    copy_field(L, lua_gettop(L) - 1, "getinfo");
    copy_field(L, lua_gettop(L) - 1, "traceback");
    lua_setfield(L, -3, "debug");
    lua_pop(L, 1);
    lua_createtable(L, 0, 1);
    lua_pushvalue(L, globals);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_remove(L, globals);
}

static void hide_libraries(lua_State *L, unsigned capabilities)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushglobaltable(L);
    for (size_t i = 0; i < sizeof hidden_libraries / sizeof hidden_libraries[0]; i++) {
        if (capabilities & hidden_libraries[i].capabilities)
            continue;
        lua_pushnil(L);
        lua_setfield(L, -2, hidden_libraries[i].name);
        lua_pushnil(L);
        lua_setfield(L, -3, hidden_libraries[i].name);
    }
    lua_pop(L, 2);
}

void sl_sandbox_apply(lua_State *L, unsigned capabilities)
{
    *pcall_depth(L) = 0; /* of the main thread: coroutines begin with a copy */
    push_library_globals(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, environment_key);
    for (size_t i = 0; i < sizeof replaced_functions / sizeof replaced_functions[0]; i++) {
        const struct replaced *replaced = &replaced_functions[i];
        lua_getglobal(L, replaced->library);
        lua_getfield(L, -1, replaced->name);
        lua_pushcclosure(L, replaced->function, 1);
        lua_setfield(L, -2, replaced->name);
        lua_pop(L, 1);
    }
    lua_getglobal(L, "string");
    sl_pattern_install(L);
    lua_pop(L, 1);
    lock_metatable(L, "sluice.error");
    lock_metatable(L, "sluice.json.array");
    hide_libraries(L, capabilities);
}

void sl_sandbox_push_environment(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, environment_key);
}
