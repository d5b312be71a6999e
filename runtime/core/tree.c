/* SPDX-License-Identifier: MIT */
/* task.tree(): every task, what it waits for, its age and its deadline. */
#include "internal.h"

static const char *const state_names[] = {"new", "ready", "running", "waiting", "ended"};

/** Pushes "file:line" of the function at the bottom of the task's coroutine. */
static void push_name(lua_State *L, sl_task *task)
{
    lua_Debug frame, outermost = {.short_src = "?"};
    if (task->state == SL_TASK_NEW) {
        lua_pushvalue(task->co, 4);
        lua_getinfo(task->co, ">S", &frame);
        lua_pushfstring(L, "%s:%d", frame.short_src, frame.linedefined);
        return;
    }
    for (int level = 0; lua_getstack(task->co, level, &frame); level++)
        if (lua_getinfo(task->co, "S", &frame) && frame.linedefined > 0)
            outermost = frame;
    lua_pushfstring(L, "%s:%d", outermost.short_src, outermost.linedefined);
}

static int64_t tree_now(sl_task *task)
{
    return task->clock->simulated ? task->clock->now : sl_clock_read();
}

static void set_row_seconds(lua_State *L, const char *name, int64_t microseconds)
{
    lua_pushnumber(L, (lua_Number)microseconds / 1e6);
    lua_setfield(L, -2, name);
}

static int scope_depth(sl_scope *scope)
{
    int depth = 0;
    while (scope && scope->owner) {
        depth++;
        scope = scope->owner->parent;
    }
    return depth;
}

static void push_task(lua_State *L, sl_task *task)
{
    lua_createtable(L, 0, 8);
    lua_pushinteger(L, (lua_Integer)task->base.serial);
    lua_setfield(L, -2, "id");
    push_name(L, task);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, state_names[task->state]);
    lua_setfield(L, -2, "state");
    if (task->state == SL_TASK_WAITING) {
        lua_pushstring(L, task->what);
        lua_setfield(L, -2, "waits_for");
    }
    set_row_seconds(L, "age", tree_now(task) - task->since);
    if (task->scope->due != INT64_MAX)
        set_row_seconds(L, "deadline", task->scope->due - tree_now(task));
    lua_pushboolean(L, task->base.cancelled);
    lua_setfield(L, -2, "cancelled");
    lua_pushinteger(L, scope_depth(task->parent));
    lua_setfield(L, -2, "depth");
    if (task->parent && task->parent->owner) {
        lua_pushinteger(L, (lua_Integer)task->parent->owner->base.serial);
        lua_setfield(L, -2, "parent");
    }
}

/** Appends the tasks of a scope. Scopes further in than the body are found by their tasks' rows. */
static lua_Integer push_scope(lua_State *L, sl_scope *root, lua_Integer count)
{
    sl_task *task = root->children;
    while (task) {
        push_task(L, task);
        lua_rawseti(L, -2, ++count);
        sl_scope *inner = task->scope;
        while (inner && !inner->children)
            inner = inner->outer;
        if (inner) {
            task = inner->children;
            continue;
        }
        for (;;) {
            if (task->next_sibling) {
                task = task->next_sibling;
                break;
            }
            sl_scope *scope = task->parent;
            if (scope == root)
                return count;
            /* the next scope outwards of the same task that has children, else its sibling */
            sl_task *owner = scope->owner;
            sl_scope *next = scope->outer;
            while (next && !next->children)
                next = next->outer;
            if (next) {
                task = next->children;
                break;
            }
            task = owner;
        }
    }
    return count;
}

int l_task_tree(lua_State *L)
{
    sl_core *core = sl_core_of(L);
    luaL_checkstack(L, 8, NULL);
    lua_newtable(L);
    lua_Integer count = push_scope(L, &core->root, 0);
    for (sl_scope *group = core->groups; group; group = group->outer)
        count = push_scope(L, group, count);
    return 1;
}
