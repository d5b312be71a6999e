/* SPDX-License-Identifier: MIT */
/* Waiting: how a task suspends, and what ends the wait (served, cancelled, past a deadline). */
#include "internal.h"

#include <string.h>

/* The private value that our yields carry; its address is what counts. */
const char sl_wait_mark[] = "sluice.wait";

sl_task *sl_task_current(sl_core *core)
{
    return core->current;
}

/* ---- lists ---- */

void sl_waitlist_append(sl_waitlist *list, sl_task *task)
{
    task->list = list;
    task->next = NULL;
    task->previous = list->last;
    if (list->last)
        list->last->next = task;
    else
        list->first = task;
    list->last = task;
}

void sl_waitlist_remove(sl_waitlist *list, sl_task *task)
{
    if (task->previous)
        task->previous->next = task->next;
    else
        list->first = task->next;
    if (task->next)
        task->next->previous = task->previous;
    else
        list->last = task->previous;
    task->next = task->previous = NULL;
    task->list = NULL;
}

static void waitlist_cancel(sl_task *task, void *object)
{
    sl_waitlist_remove(object, task);
}

int sl_waitlist_wait(lua_State *L, sl_waitlist *list, const char *what, lua_KContext ctx,
                     lua_KFunction k)
{
    sl_wait_check(L);
    sl_waitlist_append(list, sl_core_of(L)->current);
    return sl_wait_checked(L, what, waitlist_cancel, list, ctx, k);
}

size_t sl_waitlist_wake(sl_waitlist *list, size_t count)
{
    size_t woken = 0;
    while (woken < count && list->first) {
        sl_task *task = list->first;
        sl_waitlist_remove(list, task);
        sl_wake(task);
        woken++;
    }
    return woken;
}

/* ---- what is pending: cancellation and deadlines are levels, not events ---- */

/** The outermost cancelled scope that the task can see: a shield hides what is outside of it. */
static sl_scope *pending_scope(sl_task *task)
{
    sl_scope *found = NULL;
    for (sl_scope *scope = task->scope; scope; scope = scope->outer) {
        if (scope->cancelled)
            found = scope;
        if (scope->shield)
            break;
    }
    return found;
}

static int64_t task_now(sl_task *task)
{
    return task->clock->simulated ? task->clock->now : sl_clock_read();
}

static bool deadline_passed(sl_task *task)
{
    return task->scope->due != INT64_MAX && task->scope->due <= task_now(task);
}

bool sl_is_pending(sl_task *task)
{
    return pending_scope(task) != NULL || deadline_passed(task);
}

static void set_origin(lua_State *L, sl_scope *scope)
{
    lua_pushinteger(L, (lua_Integer)scope->serial);
    lua_setfield(L, -2, "_scope");
}

static void push_cancelled(lua_State *L, sl_task *task)
{
    sl_scope *scope = pending_scope(task);
    if (!scope)
        scope = &task->base;
    if (scope->reason_ref > 0) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, scope->reason_ref);
        sl_push_text(L, -1);
        sl_error_push(L, "TaskCancelled", "the task was cancelled: %s", lua_tostring(L, -1));
        lua_rotate(L, -3, 1);
        lua_pop(L, 1);
        lua_setfield(L, -2, "reason");
    } else {
        const char *reason = scope->reason ? scope->reason : "no reason given";
        sl_error_push(L, "TaskCancelled", "the task was cancelled: %s", reason);
        lua_pushstring(L, reason);
        lua_setfield(L, -2, "reason");
    }
    set_origin(L, scope);
}

static void push_timed_out(lua_State *L, sl_task *task)
{
    sl_scope *scope = task->scope->due_scope ? task->scope->due_scope : task->scope;
    sl_error_push(L, "TimeoutError", "%s: the limit of %g s of task.timeout has passed",
                  task->what ? task->what : "a task", (double)scope->limit);
    lua_pushliteral(L, "task.timeout");
    lua_setfield(L, -2, "limit");
    set_origin(L, scope);
}

bool sl_pending_push(lua_State *L, sl_task *task)
{
    if (pending_scope(task))
        push_cancelled(L, task);
    else if (deadline_passed(task))
        push_timed_out(L, task);
    else
        return false;
    return true;
}

static void push_outcome(lua_State *L, sl_task *task)
{
    if (task->outcome == SL_TIMED_OUT)
        push_timed_out(L, task);
    else
        push_cancelled(L, task);
}

static int l_interruption(lua_State *L)
{
    sl_task *task = lua_touserdata(L, 1);
    if (task->outcome != SL_DONE || !sl_pending_push(L, task))
        push_outcome(L, task);
    return 1;
}

void sl_interruption_push(lua_State *L, sl_task *task)
{
    lua_pushcfunction(L, l_interruption);
    lua_pushlightuserdata(L, task);
    (void)lua_pcall(L, 1, 1, 0); /* an error of it takes the place of the err */
}

/* ---- where Lua cannot yield ---- */

/** Pushes the name under which a loaded module holds the function at the top; pops the function. */
static bool push_library_name(lua_State *L)
{
    int function = lua_gettop(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    for (lua_pushnil(L); lua_next(L, function + 1); lua_pop(L, 1)) {
        if (!lua_istable(L, -1) || lua_type(L, -2) != LUA_TSTRING)
            continue;
        for (lua_pushnil(L); lua_next(L, function + 3); lua_pop(L, 1)) {
            if (!lua_rawequal(L, -1, function) || lua_type(L, -2) != LUA_TSTRING)
                continue;
            const char *module = lua_tostring(L, function + 2);
            bool global = strcmp(module, LUA_GNAME) == 0;
            lua_pushfstring(L, "%s%s%s", global ? "" : module, global ? "" : ".",
                            lua_tostring(L, -2));
            lua_replace(L, function);
            lua_settop(L, function);
            return true;
        }
    }
    lua_settop(L, function - 1);
    return false;
}

/** Whether waits pass through this C function, so that it is not what stands in the way. */
static bool is_transparent(const char *name)
{
    static const char *const names[] = {"pcall",  "xpcall",         "require",
                                        "dofile", "coroutine.wrap", "coroutine.resume",
                                        "select", "assert",         NULL};
    for (int i = 0; names[i]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return strncmp(name, "sluice.", 7) == 0;
}

/** Pushes the name of the C function that Lua cannot yield across, as far as Lua knows it. */
static bool push_blocking_function(lua_State *L)
{
    lua_Debug frame;
    luaL_checkstack(L, 8, NULL);
    for (int level = 1; lua_getstack(L, level, &frame); level++) {
        if (!lua_getinfo(L, "Sf", &frame))
            continue;
        if (strcmp(frame.what, "C") != 0) {
            lua_pop(L, 1);
        } else if (push_library_name(L)) {
            if (!is_transparent(lua_tostring(L, -1)))
                return true;
            lua_pop(L, 1);
        }
    }
    return false;
}

int sl_raise_cannot_wait(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    if (!core || !core->current)
        return luaL_error(L, "cannot wait here: not inside a task (use sluice.run)");
    if (L != core->running && lua_isyieldable(L))
        return luaL_error(L, "cannot wait here: this coroutine was resumed by a function that is "
                             "not the runtime's (one that was kept from before it began?)");
    if (core->current->pinned)
        return luaL_error(L, "cannot wait here: this coroutine was resumed where Lua cannot yield");
    if (push_blocking_function(L))
        return luaL_error(L, "cannot wait here: Lua cannot yield across %s", lua_tostring(L, -1));
    return luaL_error(L, "cannot wait here: Lua cannot yield in a finalizer, a hook, or in a "
                         "closer that runs under coroutine.close");
}

bool sl_can_wait(lua_State *L, sl_core *core)
{
    return core && core->current && L == core->running && !core->current->pinned &&
           lua_isyieldable(L);
}

void sl_wait_check(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    if (!sl_can_wait(L, core)) {
        sl_raise_cannot_wait(L);
        return;
    }
    if (sl_pending_push(L, core->current))
        lua_error(L);
}

bool sl_can_wait_outside(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    return sl_can_wait(L, core) && !core->current->clock->simulated;
}

void sl_require_real_time(lua_State *L, const char *operation)
{
    sl_core *core = sl_core_of(L);
    if (core->current && core->current->clock->simulated)
        luaL_error(L,
                   "%s needs a real socket, which cannot be used in simulated time "
                   "(use an in-process transport)",
                   operation);
}

/* ---- suspending ---- */

static int wait_resumed(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    sl_task *task = (sl_task *)ctx;
    if (task->outcome == SL_DONE)
        return task->k(L, LUA_YIELD, task->ctx);
    push_outcome(L, task);
    return lua_error(L);
}

static int wait_resumed_raw(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    sl_task *task = (sl_task *)ctx;
    return task->k(L, LUA_YIELD, task->ctx);
}

static sl_task *task_of_timer(sl_timer *timer)
{
    return (sl_task *)((char *)timer - offsetof(sl_task, timer));
}

static void on_deadline(sl_timer *timer)
{
    sl_wait_interrupt(task_of_timer(timer), SL_TIMED_OUT);
}

static void wait_begin(sl_task *task, const char *what, sl_cancel cancel, void *object)
{
    task->what = what;
    task->cancel = cancel;
    task->object = object;
    task->outcome = SL_DONE;
    task->state = SL_TASK_WAITING;
    task->uninterruptible = false;
    task->slices = 0;
}

int sl_wait_checked(lua_State *L, const char *what, sl_cancel cancel, void *object,
                    lua_KContext ctx, lua_KFunction k)
{
    sl_task *task = sl_core_of(L)->current;
    wait_begin(task, what, cancel, object);
    task->k = k;
    task->ctx = ctx;
    if (task->scope->due != INT64_MAX) {
        task->timer.on_due = on_deadline;
        sl_clock_timer_start(task->clock, &task->timer, task->scope->due);
    }
    lua_pushlightuserdata(L, (void *)sl_wait_mark);
    return lua_yieldk(L, 1, (lua_KContext)task, wait_resumed);
}

int sl_wait(lua_State *L, const char *what, sl_cancel cancel, void *object, lua_KContext ctx,
            lua_KFunction k)
{
    sl_wait_check(L);
    return sl_wait_checked(L, what, cancel, object, ctx, k);
}

int sl_wait_raw(lua_State *L, sl_task *task, bool uninterruptible, lua_KContext ctx,
                lua_KFunction k)
{
    wait_begin(task, "the tasks of its scope", NULL, NULL);
    task->uninterruptible = uninterruptible;
    task->k = k;
    task->ctx = ctx;
    if (!uninterruptible && task->scope->due != INT64_MAX) {
        task->timer.on_due = on_deadline;
        sl_clock_timer_start(task->clock, &task->timer, task->scope->due);
    }
    lua_pushlightuserdata(L, (void *)sl_wait_mark);
    return lua_yieldk(L, 1, (lua_KContext)task, wait_resumed_raw);
}

/* ---- sleeping: the one timer of the task serves as alarm and as deadline ---- */

static int slept(lua_State *L, int status, lua_KContext ctx)
{
    (void)L;
    (void)status;
    (void)ctx;
    return 0;
}

static void on_alarm(sl_timer *timer)
{
    sl_wake(task_of_timer(timer));
}

int sl_wait_until(lua_State *L, sl_task *task, int64_t due)
{
    bool late = task->scope->due < due;
    wait_begin(task, "task.sleep", NULL, NULL);
    task->k = slept;
    task->ctx = 0;
    if (due == INT64_MIN) {
        sl_wake(task);
    } else {
        task->timer.on_due = late ? on_deadline : on_alarm;
        sl_clock_timer_start(task->clock, &task->timer, late ? task->scope->due : due);
    }
    lua_pushlightuserdata(L, (void *)sl_wait_mark);
    return lua_yieldk(L, 1, (lua_KContext)task, wait_resumed);
}

/* ---- ending a wait ---- */

void sl_wake(sl_task *task)
{
    if (task->state != SL_TASK_WAITING)
        return;
    sl_timer_stop(&task->timer);
    task->state = SL_TASK_READY;
    sl_ready_push(task->core, task);
}

void sl_wait_interrupt(sl_task *task, enum sl_outcome outcome)
{
    if (task->state != SL_TASK_WAITING || task->uninterruptible)
        return;
    if (task->cancel)
        task->cancel(task, task->object);
    task->outcome = (unsigned char)outcome;
    sl_timer_stop(&task->timer);
    task->state = SL_TASK_READY;
    sl_ready_push(task->core, task);
}
