/* SPDX-License-Identifier: MIT */
/* Task-local values: a table that a task shares with those it spawns, until one of them sets a
 * value. */
#include "internal.h"

/** Never changed while several tasks have it: then setting a value makes a new one. */
struct sl_locals {
    /** Of the table, in the registry. */
    int ref;
    size_t users;
};

void sl_locals_inherit(sl_core *core, sl_task *task)
{
    task->locals = core->current ? core->current->locals : NULL;
    if (task->locals)
        task->locals->users++;
}

void sl_locals_release(sl_core *core, sl_task *task)
{
    sl_locals *locals = task->locals;
    task->locals = NULL;
    if (!locals || --locals->users > 0)
        return;
    luaL_unref(core->L, LUA_REGISTRYINDEX, locals->ref);
    sl_free(core, locals);
}

static sl_task *local_task(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    return core ? core->current : NULL;
}

/* get_local(name) -> value | nil */
int l_local_get(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TSTRING);
    const sl_task *task = local_task(L);
    lua_settop(L, 1);
    if (!task || !task->locals) {
        lua_pushnil(L);
        return 1;
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, task->locals->ref);
    lua_insert(L, 1);
    lua_rawget(L, 1);
    return 1;
}

/** Pushes a copy of the task's table with `name` (1) set to `value` (2), and below it what it was.
 */
static void push_changed(lua_State *L, const sl_task *task)
{
    lua_pushnil(L);
    lua_newtable(L);
    if (task->locals) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, task->locals->ref);
        lua_pushvalue(L, 1);
        lua_rawget(L, -2);
        lua_replace(L, 3);
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            lua_pushvalue(L, -2);
            lua_pushvalue(L, -2);
            lua_rawset(L, 4);
        }
        lua_pop(L, 1);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_rawset(L, 4);
}

/** Sets `name` (1) to `value` (2) in a table that no other task has; pushes what it was. */
static void push_replaced(lua_State *L, const sl_task *task)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, task->locals->ref);
    lua_pushvalue(L, 1);
    lua_rawget(L, 3);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_rawset(L, 3);
}

/* set_local(name, value) -> what it was; of the running task and of those it spawns from now on */
int l_local_set(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TSTRING);
    luaL_checkany(L, 2);
    sl_core *core = sl_core_of(L);
    sl_task *task = core->current;
    if (!task)
        return luaL_error(L, "task.set_local: only a task has values of its own");
    lua_settop(L, 2);
    if (task->locals && task->locals->users == 1) {
        push_replaced(L, task);
        return 1;
    }
    push_changed(L, task);
    int ref = luaL_ref(L, LUA_REGISTRYINDEX);
    sl_locals *locals = sl_alloc(core, sizeof *locals);
    if (!locals) {
        luaL_unref(L, LUA_REGISTRYINDEX, ref);
        return luaL_error(L, "not enough memory");
    }
    sl_locals_release(core, task);
    *locals = (sl_locals){ref, 1};
    task->locals = locals;
    return 1;
}
