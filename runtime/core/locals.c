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

void sl_local_push(lua_State *L, const char *name)
{
    const sl_task *task = local_task(L);
    if (!task || !task->locals) {
        lua_pushnil(L);
        return;
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, task->locals->ref);
    lua_pushstring(L, name);
    lua_rawget(L, -2);
    lua_remove(L, -2);
}

/* get_local(name) -> value | nil */
int l_local_get(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TSTRING);
    sl_local_push(L, lua_tostring(L, 1));
    return 1;
}

/** Pushes a copy of a table. */
static void push_copy(lua_State *L, int table)
{
    lua_newtable(L);
    int copy = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_rawset(L, copy);
    }
}

/** Pushes the table of the task, which no other task has. */
static void push_own(lua_State *L, sl_core *core, sl_task *task)
{
    sl_locals *shared = task->locals;
    if (shared) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, shared->ref);
        if (shared->users == 1)
            return;
        push_copy(L, lua_gettop(L));
        lua_replace(L, -2);
    } else {
        lua_newtable(L);
    }
    lua_pushvalue(L, -1);
    int ref = luaL_ref(L, LUA_REGISTRYINDEX);
    sl_locals *own = sl_alloc(core, sizeof *own);
    if (!own) {
        luaL_unref(L, LUA_REGISTRYINDEX, ref);
        luaL_error(L, "not enough memory");
        return;
    }
    sl_locals_release(core, task);
    *own = (sl_locals){ref, 1};
    task->locals = own;
}

void sl_local_replace(lua_State *L, const char *name)
{
    sl_core *core = sl_core_of(L);
    sl_task *task = core->current;
    if (!task) {
        luaL_error(L, "task.set_local: only a task has values of its own");
        return;
    }
    push_own(L, core, task);
    lua_pushstring(L, name);
    lua_pushvalue(L, -1);
    lua_rawget(L, -3); /* value, table, name, what it was */
    lua_insert(L, -4);
    lua_rotate(L, -3, -1); /* what it was, table, name, value */
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

/* set_local(name, value) -> what it was; of the running task and of those it spawns from now on */
int l_local_set(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TSTRING);
    luaL_checkany(L, 2);
    lua_settop(L, 2);
    sl_local_replace(L, lua_tostring(L, 1));
    return 1;
}
