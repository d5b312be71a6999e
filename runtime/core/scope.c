/* SPDX-License-Identifier: MIT */
/* Scopes: who owns a task, how cancellation and deadlines spread, how a scope is left. */
#include "internal.h"

#include <math.h>
#include <string.h>

static const char scope_type[] = "sluice.scope";

enum {
    /* Slots that the edge of a scope needs beside the results of its body. */
    EDGE_STACK = 8,
    /* Scopes of a task in each other: what unwinds through them is as slow as the stack is deep. */
    SCOPES_MOST = 150,
};

enum scope_kind {
    SCOPE_PLAIN,
    SCOPE_TIMEOUT,
    SCOPE_SHIELD,
    SCOPE_SIMULATED,
    SCOPE_GROUP,
};

/** A scope that is a userdata: of a function, or of a group. */
typedef struct scope_object {
    sl_scope scope;
    sl_core *core;
    /** Of task.simulate: the clock outside, and since when the owner lives on it. */
    sl_clock *outer_clock;
    int64_t outer_since;
    /** Of a group: the tasks that wait in close. */
    sl_waitlist closers;
    enum scope_kind kind;
    bool closed;
} scope_object;

/* ---- the tree ---- */

void sl_scope_init(sl_scope *scope, sl_task *owner, sl_scope *outer)
{
    memset(scope, 0, sizeof *scope);
    scope->owner = owner;
    scope->outer = outer;
    scope->depth = outer ? (unsigned short)(outer->depth + 1) : 0;
    scope->due = outer ? outer->due : INT64_MAX;
    scope->due_scope = outer ? outer->due_scope : NULL;
    scope->reason_ref = LUA_NOREF;
    scope->error_ref = LUA_NOREF;
    if (owner)
        scope->serial = ++owner->core->serial;
}

void sl_scope_release(lua_State *L, sl_scope *scope)
{
    luaL_unref(L, LUA_REGISTRYINDEX, scope->reason_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, scope->error_ref);
    scope->reason_ref = scope->error_ref = LUA_NOREF;
}

void sl_scope_add(sl_scope *scope, sl_task *task)
{
    task->parent = scope;
    task->previous_sibling = NULL;
    task->next_sibling = scope->children;
    if (scope->children)
        scope->children->previous_sibling = task;
    scope->children = task;
    if (scope->owner) {
        task->base.due = scope->due;
        task->base.due_scope = scope->due_scope;
    }
    if (scope->cancelled) {
        task->base.cancelled = true;
        task->base.reason = "its scope was cancelled";
    }
}

void sl_scope_remove(sl_task *task)
{
    sl_scope *scope = task->parent;
    if (task->next_sibling)
        task->next_sibling->previous_sibling = task->previous_sibling;
    if (task->previous_sibling)
        task->previous_sibling->next_sibling = task->next_sibling;
    else
        scope->children = task->next_sibling;
    task->next_sibling = task->previous_sibling = NULL;
    task->parent = NULL;
    if (scope->children || !scope->leaving)
        return;
    scope->leaving = false;
    if (scope->owner)
        sl_wake(scope->owner);
    else
        sl_waitlist_wake(&((scope_object *)scope)->closers, SIZE_MAX);
}

/* ---- cancellation ---- */

/** Whether the owner, where it runs now, is inside the scope with no shield in between. */
static bool scope_is_visible(sl_scope *scope)
{
    for (sl_scope *s = scope->owner->scope; s; s = s->outer) {
        if (s == scope)
            return true;
        if (s->shield)
            return false;
    }
    return false;
}

static void scope_mark(sl_scope *scope, const char *reason, int reason_ref)
{
    if (scope->cancelled)
        return;
    scope->cancelled = true;
    scope->reason = reason;
    scope->reason_ref = reason_ref;
    if (scope->owner && scope_is_visible(scope))
        sl_wait_interrupt(scope->owner, SL_CANCELLED);
}

/* The tasks below, in pre-order and without recursion: their number is the script's to choose.
 * Scopes further in are left by their own owners, which hear of it here. */
static void scope_cancel_children(sl_scope *scope, const char *reason)
{
    sl_task *task = scope->children;
    while (task) {
        /* what is below a cancelled task heard of it then, or was born into it */
        bool fresh = !task->base.cancelled;
        scope_mark(&task->base, reason, LUA_NOREF);
        if (fresh && task->base.children) {
            task = task->base.children;
            continue;
        }
        while (task && !task->next_sibling)
            task = task->parent == scope ? NULL : task->parent->owner;
        if (task)
            task = task->next_sibling;
    }
}

void sl_scope_cancel(sl_scope *scope, const char *reason, int reason_ref)
{
    if (scope->cancelled)
        return;
    scope_mark(scope, reason, reason_ref);
    scope_cancel_children(scope, reason ? reason : "its scope was cancelled");
}

/* ---- errors of children ---- */

static bool error_field_is(lua_State *L, int index, const char *field, const char *text)
{
    index = lua_absindex(L, index);
    if (!lua_istable(L, index))
        return false;
    lua_pushstring(L, field);
    bool same = lua_rawget(L, index) == LUA_TSTRING && strcmp(lua_tostring(L, -1), text) == 0;
    lua_pop(L, 1);
    return same;
}

uint64_t sl_error_origin(lua_State *L, int index)
{
    index = lua_absindex(L, index);
    if (!lua_istable(L, index))
        return 0;
    lua_pushliteral(L, "_scope");
    uint64_t serial = lua_rawget(L, index) == LUA_TNUMBER ? (uint64_t)lua_tointeger(L, -1) : 0;
    lua_pop(L, 1);
    return serial;
}

/* Stack: the task, its error. */
static int l_child_failed(lua_State *L)
{
    sl_task *task = lua_touserdata(L, 1);
    sl_scope *scope = task->parent;
    if (task->base.cancelled && error_field_is(L, 2, "kind", "TaskCancelled"))
        return 0;
    if (task->base.due_scope && sl_error_origin(L, 2) == task->base.due_scope->serial) {
        scope->child_timed_out = true;
        return 0;
    }
    if (task->joiners.first || task->observed)
        return 0;
    if (!scope->owner || scope->error_ref != LUA_NOREF) {
        sl_report_error(L, task->core, 2);
        return 0;
    }
    scope->error_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    sl_scope_cancel(scope, "a task of its scope failed", LUA_NOREF);
    return 0;
}

void sl_scope_child_failed(lua_State *L, sl_task *task)
{
    sl_core *core = task->core;
    lua_pushcfunction(L, l_child_failed);
    lua_pushlightuserdata(L, task);
    lua_pushvalue(L, -3);
    if (lua_pcall(L, 2, 0, 0) == LUA_OK)
        return;
    lua_pop(L, 1);
    if (core->on_error)
        core->on_error(core->on_error_user, "a task failed, and there is no memory to tell why");
    sl_scope_cancel(task->parent, "a task of its scope failed", LUA_NOREF);
}

/* ---- leaving: join the children, decide what comes out ---- */

static int scope_finish(lua_State *L, sl_scope *scope);

/** Puts what interrupts the owner in the place of what the body left. */
static void scope_take_interruption(lua_State *L, sl_scope *scope)
{
    lua_settop(L, 2);
    sl_interruption_push(L, scope->owner);
    scope->failed = true;
}

static int scope_children_ended(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    sl_scope *scope = (sl_scope *)ctx;
    sl_task *task = scope->owner;
    if (task->outcome != SL_DONE) {
        scope->leaving = false;
        scope_take_interruption(L, scope);
        scope_cancel_children(scope, "its scope was cancelled");
    }
    return scope_finish(L, scope);
}

/** Puts the error of a child in the place of what the body left. */
static void scope_take_error(lua_State *L, sl_scope *scope)
{
    sl_core *core = scope->owner->core;
    lua_rawgeti(L, LUA_REGISTRYINDEX, scope->error_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, scope->error_ref);
    scope->error_ref = LUA_NOREF;
    bool of_body = scope->failed && sl_error_origin(L, -2) != scope->serial;
    if (of_body) {
        sl_report_error(L, core, -1);
        lua_pop(L, 1);
        return;
    }
    if (lua_gettop(L) > 3)
        lua_replace(L, 3);
    lua_settop(L, 3);
    scope->failed = true;
}

static int scope_results(lua_State *L, scope_object *object)
{
    sl_scope *scope = &object->scope;
    object->closed = true;
    if (object->kind == SCOPE_SIMULATED) {
        sl_clock_release(scope->owner->clock);
        scope->owner->clock = object->outer_clock;
        scope->owner->since = object->outer_since;
    }
    sl_scope_release(L, scope);
    if (!scope->failed)
        return lua_gettop(L) - 2;
    if (sl_error_origin(L, -1) != scope->serial)
        return lua_error(L);
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

/* Stack: the object (handle or scope), the message handler, then results, or the error on top. */
static int scope_finish(lua_State *L, sl_scope *scope)
{
    sl_task *task = scope->owner;
    if (scope->children) {
        bool interrupted = scope->failed;
        if (!interrupted && sl_is_pending(task)) {
            task->outcome = SL_DONE;
            scope_take_interruption(L, scope);
            interrupted = true;
        }
        if (interrupted)
            scope_cancel_children(scope, "its scope has ended");
        scope->leaving = true;
        return sl_wait_raw(L, task, interrupted, (lua_KContext)scope, scope_children_ended);
    }
    if (scope->error_ref != LUA_NOREF)
        scope_take_error(L, scope);
    if (!scope->failed && scope->child_timed_out && sl_is_pending(task)) {
        task->outcome = SL_DONE;
        scope_take_interruption(L, scope);
    }
    if (scope == &task->base)
        return sl_task_finish(L, task);
    task->scope = scope->outer;
    return scope_results(L, lua_touserdata(L, 1));
}

int sl_scope_body_done(lua_State *L, int status, lua_KContext ctx)
{
    sl_scope *scope = (sl_scope *)ctx;
    if (status != LUA_OK && status != LUA_YIELD)
        scope->failed = true; /* the error is at 3, in the place of f */
    if (!lua_checkstack(L, EDGE_STACK)) {
        /* no room beside its results: they make place for what lua_error would be */
        lua_settop(L, 2);
        lua_pushnil(L);
        scope->failed = true;
    }
    return scope_finish(L, scope);
}

/* ---- task.scope, timeout, shield, simulate: f and its arguments start at stack index 1 ---- */

static scope_object *scope_enter(lua_State *L, sl_task *task, enum scope_kind kind)
{
    if (task->scope->depth >= SCOPES_MOST)
        luaL_error(L, "more than %d scopes in each other", SCOPES_MOST);
    scope_object *object = lua_newuserdatauv(L, sizeof *object, 0);
    memset(object, 0, sizeof *object);
    object->core = task->core;
    object->kind = kind;
    sl_scope_init(&object->scope, task, task->scope);
    luaL_setmetatable(L, scope_type);
    lua_insert(L, 1);
    lua_pushcfunction(L, sl_message_handler);
    lua_insert(L, 2);
    return object;
}

static int scope_call(lua_State *L, scope_object *object)
{
    sl_scope *scope = &object->scope;
    scope->owner->scope = scope;
    int status =
        lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 2, (lua_KContext)scope, sl_scope_body_done);
    return sl_scope_body_done(L, status, (lua_KContext)scope);
}

static sl_task *scope_check_call(lua_State *L)
{
    luaL_checkany(L, 1);
    sl_core *core = sl_core_of(L);
    if (!sl_can_wait(L, core))
        sl_raise_cannot_wait(L);
    return core->current;
}

int l_scope_run(lua_State *L)
{
    sl_task *task = scope_check_call(L);
    scope_object *object = scope_enter(L, task, SCOPE_PLAIN);
    lua_pushvalue(L, 1);
    lua_insert(L, 4);
    return scope_call(L, object);
}

/** The real clock may be behind: a scope starts its limit from now. */
static int64_t clock_now(sl_clock *clock)
{
    return clock->simulated ? clock->now : sl_now_update(clock->core);
}

int l_scope_timeout(lua_State *L)
{
    lua_Number seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, !isnan(seconds), 1, "a number of seconds expected, got nan");
    lua_remove(L, 1);
    sl_task *task = scope_check_call(L);
    scope_object *object = scope_enter(L, task, SCOPE_TIMEOUT);
    sl_scope *scope = &object->scope;
    scope->limit = (float)seconds;
    if (seconds < 0)
        seconds = 0;
    if (seconds < 1e12) {
        int64_t due = clock_now(task->clock) + (int64_t)(seconds * 1e6);
        if (due < scope->due) {
            scope->due = due;
            scope->due_scope = scope;
        }
    }
    return scope_call(L, object);
}

int l_scope_shield(lua_State *L)
{
    sl_task *task = scope_check_call(L);
    scope_object *object = scope_enter(L, task, SCOPE_SHIELD);
    object->scope.shield = true;
    object->scope.due = INT64_MAX;
    object->scope.due_scope = NULL;
    return scope_call(L, object);
}

/* Stack: seed, wall time at its start, f, arguments. */
int l_scope_simulate(lua_State *L)
{
    lua_Integer seed = luaL_checkinteger(L, 1);
    lua_Number epoch = luaL_checknumber(L, 2);
    lua_rotate(L, 1, -2);
    lua_pop(L, 2);
    sl_task *task = scope_check_call(L);
    scope_object *object = scope_enter(L, task, SCOPE_SIMULATED);
    sl_clock *clock = sl_clock_new(task->core, epoch, (uint64_t)seed);
    if (!clock)
        return luaL_error(L, "not enough memory");
    /* a deadline outside counts on the clock outside */
    object->scope.due = INT64_MAX;
    object->scope.due_scope = NULL;
    object->outer_clock = task->clock;
    object->outer_since = task->since;
    task->since += clock->now - clock_now(task->clock); /* its age goes on */
    task->clock = clock;
    return scope_call(L, object);
}

/* ---- groups, and the methods of scopes ---- */

static scope_object *check_scope(lua_State *L)
{
    scope_object *object = luaL_checkudata(L, 1, scope_type);
    if (object->closed)
        luaL_error(L, "the scope is closed");
    return object;
}

/* A group is reachable until it is closed, for its tasks point to it. */
int l_group_new(lua_State *L)
{
    sl_core *core = sl_core_of(L);
    scope_object *object = lua_newuserdatauv(L, sizeof *object, 0);
    memset(object, 0, sizeof *object);
    object->core = core;
    object->kind = SCOPE_GROUP;
    object->closed = true;
    sl_scope_init(&object->scope, NULL, NULL);
    luaL_setmetatable(L, scope_type);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, object);
    object->scope.outer = core->groups;
    core->groups = &object->scope;
    object->closed = false;
    return 1;
}

static int group_closed(lua_State *L, int status, lua_KContext ctx);

static int group_wait(lua_State *L, scope_object *object)
{
    sl_task *task = object->core->current;
    object->scope.leaving = true;
    sl_waitlist_append(&object->closers, task);
    return sl_wait_raw(L, task, true, (lua_KContext)object, group_closed);
}

static int group_closed(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    scope_object *object = (scope_object *)ctx;
    if (object->closed)
        return 0;
    if (object->scope.children) /* a task was spawned after the last one had ended */
        return group_wait(L, object);
    object->closed = true;
    sl_scope **link = &object->core->groups;
    while (*link != &object->scope)
        link = &(*link)->outer;
    *link = object->scope.outer;
    sl_scope_release(L, &object->scope);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, object);
    return 0;
}

/** Whether the task, or one it belongs to, belongs to the group. */
static bool is_inside(const sl_task *task, const sl_scope *group)
{
    while (task && task->parent != group)
        task = task->parent ? task->parent->owner : NULL;
    return task != NULL;
}

/* Waits whatever is pending for the caller: a closer runs in cancelled tasks too. */
static int l_group_close(lua_State *L)
{
    scope_object *object = luaL_checkudata(L, 1, scope_type);
    if (object->kind != SCOPE_GROUP)
        return luaL_error(L, "a scope closes when its function returns");
    if (object->closed)
        return 0;
    sl_scope_cancel(&object->scope, "its group was closed", LUA_NOREF);
    if (!object->scope.children)
        return group_closed(L, LUA_OK, (lua_KContext)object);
    if (!sl_can_wait(L, object->core))
        return sl_raise_cannot_wait(L);
    if (is_inside(object->core->current, &object->scope))
        return luaL_error(L, "a task of the group cannot close it: it would wait for itself");
    return group_wait(L, object);
}

static int l_scope_spawn(lua_State *L)
{
    scope_object *object = check_scope(L);
    luaL_checkany(L, 2);
    lua_remove(L, 1);
    sl_task_spawn(L, object->core, &object->scope);
    return 1;
}

static int l_scope_cancel(lua_State *L)
{
    scope_object *object = check_scope(L);
    int ref = LUA_NOREF;
    if (object->scope.cancelled)
        return 0;
    if (!lua_isnoneornil(L, 2)) {
        lua_settop(L, 2);
        ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    sl_scope_cancel(&object->scope, NULL, ref);
    return 0;
}

static int l_scope_tostring(lua_State *L)
{
    static const char *const names[] = {"scope", "timeout", "shield", "simulated", "group"};
    scope_object *object = luaL_checkudata(L, 1, scope_type);
    lua_pushfstring(L, "sluice.scope (%s, %s)", names[object->kind],
                    object->closed ? "closed" : "open");
    return 1;
}

/** A task that was started last, of those under a scope: nothing is under it. */
static sl_task *leaf_of(const sl_scope *scope)
{
    sl_task *leaf = NULL;
    while (scope && scope->children) {
        leaf = scope->children;
        scope = leaf->scope;
        while (scope && !scope->children)
            scope = scope->outer;
    }
    return leaf;
}

static void abandon_children(sl_core *core, sl_scope *root)
{
    sl_task *task;
    while ((task = leaf_of(root)) != NULL) {
        for (sl_scope *scope = task->scope; scope != &task->base; scope = scope->outer) {
            ((scope_object *)scope)->closed = true;
            sl_scope_release(core->L, scope);
        }
        sl_task_abandon(task);
    }
}

void sl_scopes_abandon(sl_core *core)
{
    abandon_children(core, &core->root);
    while (core->groups) {
        scope_object *group = (scope_object *)core->groups;
        abandon_children(core, &group->scope);
        sl_scope_release(core->L, &group->scope);
        core->groups = group->scope.outer;
        group->closed = true;
        lua_pushnil(core->L);
        lua_rawsetp(core->L, LUA_REGISTRYINDEX, group);
    }
    sl_clocks_free(core);
}

static const luaL_Reg scope_methods[] = {
    {"spawn", l_scope_spawn},
    {"cancel", l_scope_cancel},
    {"close", l_group_close},
    {NULL, NULL},
};

static const luaL_Reg scope_metamethods[] = {
    {"__tostring", l_scope_tostring},
    {"__close", l_group_close},
    {NULL, NULL},
};

void sl_scope_register(lua_State *L)
{
    luaL_newmetatable(L, scope_type);
    luaL_setfuncs(L, scope_metamethods, 0);
    luaL_newlib(L, scope_methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
