/* SPDX-License-Identifier: MIT */
/*
 * SQL functions and aggregates that are written in Lua.
 *
 * SQLite calls them during a step on the thread of the state, which a Lua call made: so a protected
 * call may enter Lua here, but not wait. A database that has one makes no step on another thread.
 */
#include "sqlite_lua.h"

#include <stdio.h>
#include <string.h>

/** One function: its Lua functions are fields of the database's table under `key` and a letter. */
typedef struct sql_function {
    sqlite_box *box;
    char key[80];
} sql_function;

/** A call, for the protected part. */
typedef struct sql_call {
    sql_function *function;
    sqlite3_context *context;
    int count;
    sqlite3_value **values;
    /** Of an aggregate: where its state is; 0: there is none. */
    lua_Integer *state;
} sql_call;

static void push_functions(lua_State *L, const sql_function *function)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, function->box);
}

static void set_result(lua_State *L, sqlite3_context *context)
{
    size_t size;
    const char *bytes;
    switch (lua_type(L, -1)) {
    case LUA_TNIL:
    case LUA_TLIGHTUSERDATA:
        sqlite3_result_null(context);
        break;
    case LUA_TBOOLEAN:
        sqlite3_result_int(context, lua_toboolean(L, -1));
        break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1))
            sqlite3_result_int64(context, lua_tointeger(L, -1));
        else
            sqlite3_result_double(context, lua_tonumber(L, -1));
        break;
    case LUA_TSTRING:
        bytes = lua_tolstring(L, -1, &size);
        sqlite3_result_text64(context, bytes, size, SQLITE_TRANSIENT, SQLITE_UTF8);
        break;
    default:
        bytes = sl_sqlite_blob(L, lua_gettop(L), &size);
        if (!bytes)
            luaL_error(L, "it returned a %s", luaL_typename(L, -1));
        sqlite3_result_blob64(context, bytes, size, SQLITE_TRANSIENT);
    }
}

static void push_values(lua_State *L, const sql_call *call)
{
    luaL_checkstack(L, call->count + 4, "a SQL function");
    for (int i = 0; i < call->count; i++)
        sl_sqlite_push_value(L, call->values[i]);
}

/** Pushes the function of that letter; the database's table is at 2. */
static void push_part(lua_State *L, const sql_function *function, char letter)
{
    lua_pushfstring(L, "%c%s", letter, function->key);
    lua_rawget(L, 2);
}

static int call_function(lua_State *L)
{
    const sql_call *call = lua_touserdata(L, 1);
    push_functions(L, call->function);
    push_part(L, call->function, 'f');
    push_values(L, call);
    lua_call(L, call->count, 1);
    set_result(L, call->context);
    return 0;
}

/** Makes the state of a group, if there is none, and pushes it. */
static void push_state(lua_State *L, const sql_call *call)
{
    if (*call->state == 0) {
        push_part(L, call->function, 'a');
        lua_call(L, 0, 1);
        lua_Integer place = ++call->function->box->last_state;
        lua_rawseti(L, 2, place);
        *call->state = place;
    }
    lua_rawgeti(L, 2, *call->state);
}

static int call_step(lua_State *L)
{
    const sql_call *call = lua_touserdata(L, 1);
    push_functions(L, call->function);
    push_part(L, call->function, 's');
    push_state(L, call);
    push_values(L, call);
    lua_call(L, call->count + 1, 1);
    if (!lua_isnil(L, -1))
        lua_rawseti(L, 2, *call->state);
    return 0;
}

static int call_finish(lua_State *L)
{
    const sql_call *call = lua_touserdata(L, 1);
    push_functions(L, call->function);
    push_part(L, call->function, 'e');
    push_state(L, call);
    lua_pushnil(L);
    lua_rawseti(L, 2, *call->state);
    lua_call(L, 1, 1);
    set_result(L, call->context);
    return 0;
}

/** Enters Lua, protected; an error becomes SQLite's. */
static void enter_lua(sql_call *call, lua_CFunction body)
{
    lua_State *L = call->function->box->running;
    if (!L || !lua_checkstack(L, 4)) {
        sqlite3_result_error(call->context, "a function in Lua cannot be called here", -1);
        return;
    }
    lua_pushcfunction(L, body);
    lua_pushlightuserdata(L, call);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK)
        return;
    const char *text = lua_tostring(L, -1); /* of an err table: none */
    sqlite3_result_error(call->context, text ? text : "a function in Lua failed", -1);
    lua_pop(L, 1);
}

static void on_sql_function(sqlite3_context *context, int count, sqlite3_value **values)
{
    sql_call call = {sqlite3_user_data(context), context, count, values, NULL};
    enter_lua(&call, call_function);
}

static void on_sql_step(sqlite3_context *context, int count, sqlite3_value **values)
{
    sql_call call = {sqlite3_user_data(context), context, count, values, NULL};
    call.state = sqlite3_aggregate_context(context, sizeof *call.state);
    if (call.state)
        enter_lua(&call, call_step);
    else
        sqlite3_result_error_nomem(context);
}

static void on_sql_finish(sqlite3_context *context)
{
    lua_Integer none = 0;
    sql_call call = {sqlite3_user_data(context), context, 0, NULL, NULL};
    call.state = sqlite3_aggregate_context(context, 0);
    if (!call.state)
        call.state = &none; /* of a group without rows */
    enter_lua(&call, call_finish);
}

/** What both take: the database, the name, how many arguments (-1: any number). Leaves the
 * database's table on top. */
static sql_function check_function(lua_State *L)
{
    sql_function function = {.box = sl_sqlite_check(L, 1)};
    const char *name = luaL_checkstring(L, 2);
    int arguments = (int)luaL_checkinteger(L, 3);
    luaL_argcheck(L, arguments >= -1 && arguments <= 100, 3, "-1 to 100 arguments");
    luaL_argcheck(L, strlen(name) > 0 && strlen(name) < 64, 2, "a name of 1 to 63 characters");
    luaL_argcheck(L, !function.box->engine.is_running, 1, "another task's query is under way");
    snprintf(function.key, sizeof function.key, "%s/%d", name, arguments);
    push_functions(L, &function);
    return function;
}

/** Keeps the Lua function at the index under the letter; the database's table is on top. */
static void keep_part(lua_State *L, const sql_function *function, char letter, int index)
{
    luaL_checktype(L, index, LUA_TFUNCTION);
    lua_pushfstring(L, "%c%s", letter, function->key);
    lua_pushvalue(L, index);
    lua_rawset(L, -3);
}

/** Gives it to SQLite, as an aggregate where it has steps. */
static int add_function(lua_State *L, const sql_function *function, int flags, bool has_steps)
{
    sqlite_box *box = function->box;
    sql_function *kept = sqlite3_malloc(sizeof *kept);
    if (!kept)
        return luaL_error(L, "not enough memory");
    *kept = *function;
    int result = sqlite3_create_function_v2(
        box->engine.db, lua_tostring(L, 2), (int)lua_tointeger(L, 3),
        flags | SQLITE_UTF8 | SQLITE_DIRECTONLY, kept, has_steps ? NULL : on_sql_function,
        has_steps ? on_sql_step : NULL, has_steps ? on_sql_finish : NULL, sqlite3_free);
    if (result != SQLITE_OK)
        return sl_sqlite_push_failure(L, box, result);
    box->engine.is_bound_to_thread = true;
    lua_pushboolean(L, 1);
    return 1;
}

int sl_sqlite_create_function(lua_State *L)
{
    int flags = lua_toboolean(L, 5) ? SQLITE_DETERMINISTIC : 0;
    sql_function function = check_function(L);
    keep_part(L, &function, 'f', 4);
    return add_function(L, &function, flags, false);
}

int sl_sqlite_create_aggregate(lua_State *L)
{
    lua_settop(L, 6);
    sql_function function = check_function(L);
    keep_part(L, &function, 'a', 4);
    keep_part(L, &function, 's', 5);
    keep_part(L, &function, 'e', 6);
    return add_function(L, &function, 0, true);
}
