/* SPDX-License-Identifier: MIT */
/* The life of a task: spawned, resumed by the pump, ended; its results and its errors. */
#include "internal.h"

#include <string.h>

const char sl_task_type[] = "sluice.task";

enum {
    /* Coroutines kept for the next task: 38 ns against 600 to 800 ns for a new one. */
    THREAD_POOL_MAX = 1024,
    /* What task_main and a C function of ours need on a coroutine before f's arguments. */
    TASK_STACK = 8,
    /* Whole slices that a cancelled task may compute without waiting. */
    SLICES_TO_OBEY = 50,
};

/* ---- pooled coroutines ---- */

static bool pool_reserve(sl_core *core)
{
    if (core->pool_used < core->pool_size)
        return true;
    size_t size = core->pool_size ? core->pool_size * 2 : 16;
    sl_thread *pool = sl_realloc(core, core->pool, size * sizeof *pool);
    if (!pool)
        return false;
    core->pool = pool;
    core->pool_size = size;
    return true;
}

static sl_thread thread_take(lua_State *L, sl_core *core)
{
    if (core->pool_used > 0)
        return core->pool[--core->pool_used];
    sl_thread thread = {.co = lua_newthread(L)};
    thread.ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return thread;
}

/** A coroutine that ended well goes to the pool; Lua forgets any other one. */
static void thread_give(sl_core *core, sl_thread thread, bool clean)
{
    if (clean && core->pool_used < THREAD_POOL_MAX && pool_reserve(core)) {
        lua_settop(thread.co, 0);
        core->pool[core->pool_used++] = thread;
    } else {
        luaL_unref(core->L, LUA_REGISTRYINDEX, thread.ref);
    }
}

void sl_thread_pool_free(sl_core *core)
{
    for (size_t i = 0; i < core->pool_used; i++)
        luaL_unref(core->L, LUA_REGISTRYINDEX, core->pool[i].ref);
    sl_free(core, core->pool);
    core->pool = NULL;
    core->pool_size = core->pool_used = 0;
}

/* ---- the ready queue ---- */

void sl_ready_push(sl_core *core, sl_task *task)
{
    sl_waitlist_append(&core->ready, task);
}

/** With a seed, any ready task of the same clock may be the next: an interleaving to replay. */
static sl_task *ready_shuffled(sl_core *core, sl_clock *clock)
{
    uint64_t count = 0;
    for (sl_task *task = core->ready.first; task; task = task->next)
        count += task->clock == clock;
    uint64_t x = clock->seed; /* xorshift64 */
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    clock->seed = x;
    uint64_t skip = count ? x % count : 0;
    sl_task *task = core->ready.first;
    for (;; task = task->next)
        if (task->clock == clock && skip-- == 0)
            return task;
}

sl_task *sl_ready_pop(sl_core *core)
{
    sl_task *task = core->ready.first;
    if (!task)
        return NULL;
    if (task->clock->seed && task->next)
        task = ready_shuffled(core, task->clock);
    sl_waitlist_remove(&core->ready, task);
    return task;
}

/* ---- errors ---- */

static const char task_failure_key[] = "sluice.failure";

/* Keeps the traceback of the newest error beside its value: the value itself is not touched. */
int sl_message_handler(lua_State *L)
{
    lua_settop(L, 1);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, task_failure_key) == LUA_TTABLE) {
        lua_rawgeti(L, 2, 1);
        if (lua_rawequal(L, 1, -1)) {
            lua_settop(L, 1);
            return 1;
        }
    }
    lua_settop(L, 1);
    /* a cancellation or a deadline is no fault of the place where it was raised */
    lua_pushliteral(L, "_scope");
    if (lua_istable(L, 1) && lua_rawget(L, 1) != LUA_TNIL) {
        lua_settop(L, 1);
        return 1;
    }
    lua_settop(L, 1);
    lua_createtable(L, 2, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, 2, 1);
    luaL_traceback(L, L, NULL, 1);
    lua_rawseti(L, 2, 2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, task_failure_key);
    return 1;
}

static int l_to_text(lua_State *L)
{
    luaL_tolstring(L, 1, NULL);
    return 1;
}

void sl_push_text(lua_State *L, int index)
{
    index = lua_absindex(L, index);
    luaL_checkstack(L, 4, NULL);
    lua_pushcfunction(L, l_to_text);
    lua_pushvalue(L, index);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK)
        return;
    const char *why = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "?";
    lua_pushfstring(L, "a value whose __tostring fails: %s", why);
    lua_remove(L, -2);
}

void sl_push_error_text(lua_State *L, int index)
{
    index = lua_absindex(L, index);
    luaL_checkstack(L, 4, NULL);
    sl_push_text(L, index);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, task_failure_key) != LUA_TTABLE) {
        lua_pop(L, 1);
        return;
    }
    lua_rawgeti(L, -1, 1);
    lua_rawgeti(L, -2, 2);
    bool same = lua_rawequal(L, index, -2);
    lua_replace(L, -3);
    lua_pop(L, 1);
    if (!same) {
        lua_pop(L, 1);
        return;
    }
    lua_pushliteral(L, "\n");
    lua_insert(L, -2);
    lua_concat(L, 3);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, task_failure_key);
}

static int l_error_text(lua_State *L)
{
    sl_push_error_text(L, 1);
    return 1;
}

void sl_report_error(lua_State *L, sl_core *core, int index)
{
    if (!core->on_error)
        return;
    index = lua_absindex(L, index);
    lua_pushcfunction(L, l_error_text);
    lua_pushvalue(L, index);
    (void)sl_call_briefly(L, 1, 1);
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    core->on_error(core->on_error_user, text ? text : "an error without a text");
    lua_pop(L, 1);
}

/* ---- a task's way from spawn to end; its coroutine holds: handle, message handler, f, ... ---- */

static int l_pack(lua_State *L)
{
    int count = lua_gettop(L);
    lua_createtable(L, count, 0);
    lua_insert(L, 1);
    for (int i = count; i >= 1; i--)
        lua_rawseti(L, 1, i);
    return 1;
}

/** Leaves one value at the top, of what the body left at 3 and above: its result, the table of
 * them, or the error. Does not raise. */
static void pack_results(lua_State *L, sl_task *task)
{
    task->results = lua_gettop(L) - 2;
    if (task->results < 2)
        return;
    lua_pushcfunction(L, l_pack);
    lua_insert(L, 3);
    if (lua_pcall(L, task->results, 1, 0) != LUA_OK)
        task->failed = true;
}

/* Nothing here raises: an error would leave a task that never ends. */
static int task_end(lua_State *L, sl_task *task)
{
    sl_core *core = task->core;
    if (!task->failed)
        pack_results(L, task);
    if (task->failed) {
        task->results = 1;
        sl_scope_child_failed(L, task);
    }
    if (task->results > 0)
        lua_setiuservalue(L, 1, 1);
    sl_scope_release(L, &task->base);
    task->state = SL_TASK_ENDED;
    sl_scope_remove(task);
    sl_waitlist_wake(&task->joiners, SIZE_MAX);
    sl_meter_release(core, task);
    sl_locals_release(core, task);
    sl_clock_release(task->clock);
    task->clock = &core->real;
    core->tasks--;
    return 0;
}

static int task_body_done(lua_State *L, int status, lua_KContext ctx)
{
    return sl_scope_body_done(L, status, ctx);
}

int sl_task_finish(lua_State *L, sl_task *task)
{
    task->failed = task->base.failed;
    return task_end(L, task);
}

static int task_main(lua_State *L)
{
    sl_task *task = lua_touserdata(L, 1);
    lua_KContext ctx = (lua_KContext)&task->base;
    if (sl_is_pending(task)) {
        lua_settop(L, 2); /* as after a failed call of f */
        task->outcome = SL_DONE;
        sl_interruption_push(L, task);
        return task_body_done(L, LUA_ERRRUN, ctx);
    }
    int status = lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 2, ctx, task_body_done);
    return task_body_done(L, status, ctx);
}

sl_task *sl_task_spawn(lua_State *L, sl_core *core, sl_scope *parent)
{
    int count = lua_gettop(L);
    sl_thread thread = {.co = NULL};
    sl_task *task = lua_newuserdatauv(L, sizeof *task, 1);
    memset(task, 0, sizeof *task);
    task->core = core;
    task->state = SL_TASK_ENDED; /* a failure below leaves a handle that is nobody's */
    luaL_setmetatable(L, sl_task_type);
    lua_insert(L, 1);
    thread = thread_take(L, core);
    if (!lua_checkstack(thread.co, count + TASK_STACK)) {
        luaL_unref(L, LUA_REGISTRYINDEX, thread.ref);
        luaL_error(L, "task.spawn: too many arguments");
    }
    if (!sl_meter_take(core, task)) {
        luaL_unref(L, LUA_REGISTRYINDEX, thread.ref);
        luaL_error(L, "not enough memory");
    }
    lua_pushcfunction(thread.co, task_main);
    lua_pushvalue(L, 1);
    lua_xmove(L, thread.co, 1);
    lua_pushcfunction(thread.co, sl_message_handler);
    lua_xmove(L, thread.co, count);

    task->co = thread.co;
    task->thread_ref = thread.ref;
    task->clock = core->current ? core->current->clock : &core->real;
    task->clock->users++;
    sl_locals_inherit(core, task);
    sl_scope_init(&task->base, task, NULL);
    task->scope = task->floor = &task->base;
    sl_scope_add(parent, task);
    task->since = task->clock->simulated ? task->clock->now : core->real.now;
    task->state = SL_TASK_NEW;
    core->tasks++;
    sl_ready_push(core, task);
    return task;
}

/** What is left to do for a task that ends without running on. */
static void task_forget(sl_task *task)
{
    if (task->state == SL_TASK_ENDED)
        return;
    task->failed = true;
    task->results = 0;
    task->state = SL_TASK_ENDED;
    sl_scope_release(task->core->L, &task->base);
    sl_scope_remove(task);
    sl_waitlist_wake(&task->joiners, SIZE_MAX);
    sl_meter_release(task->core, task);
    sl_locals_release(task->core, task);
    sl_clock_release(task->clock);
    task->clock = &task->core->real;
    task->core->tasks--;
}

/** The coroutine broke outside of every protected call: there was no memory to begin with. */
static void task_broke(sl_task *task)
{
    lua_State *L = task->core->L;
    if (task->state == SL_TASK_ENDED)
        return;
    lua_xmove(task->co, L, 1);
    sl_scope_child_failed(L, task);
    lua_pop(L, 1);
    task_forget(task);
}

void sl_task_abandon(sl_task *task)
{
    sl_timer_stop(&task->timer);
    if (task->state == SL_TASK_WAITING && task->cancel)
        task->cancel(task, task->object);
    if (task->list)
        sl_waitlist_remove(task->list, task);
    task_forget(task);
    task->co = NULL;
    luaL_unref(task->core->L, LUA_REGISTRYINDEX, task->thread_ref);
}

/** Interrupted in mid-computation: back to the queue, at its end. */
static void task_sliced(sl_core *core, sl_task *task)
{
    core->slicing = false;
    task->sliced = true;
    if (task->slices < SLICES_TO_OBEY)
        task->slices++;
    task->state = SL_TASK_READY;
    sl_ready_push(core, task);
}

/** A cancelled task that computes and never waits has its cancellation raised where it computes. */
static bool raises_in_slice(sl_core *core, sl_task *task)
{
    if (!task->sliced || !sl_is_pending(task))
        return false;
    return core->interrupt_seen || task->slices >= SLICES_TO_OBEY;
}

void sl_task_run(sl_core *core, sl_task *task)
{
    lua_State *co = task->co;
    int arguments = 0, results = 0;
    if (task->state == SL_TASK_NEW)
        arguments = lua_gettop(co) - 1;
    else if (task->marked)
        lua_pop(co, 1);
    task->marked = false;
    core->raise_in_slice = raises_in_slice(core, task);
    if (task->sliced)
        core->interrupt_seen = false;
    task->sliced = false;
    task->state = SL_TASK_RUNNING;
    task->floor = &task->base;
    core->current = task;
    core->running = co;
    core->unsliced = 0;
    sl_slice_arm(core, co);
    int status = lua_resume(co, core->L, arguments, &results);
    core->running = NULL;
    core->current = NULL;
    if (status == LUA_YIELD) {
        task->marked = results == 1;
        if (core->slicing)
            task_sliced(core, task);
        return;
    }
    if (status != LUA_OK)
        task_broke(task);
    sl_thread thread = {.co = co, .ref = task->thread_ref};
    task->co = NULL;
    thread_give(core, thread, status == LUA_OK);
}

/* ---- joining ---- */

int sl_task_push_results(lua_State *L, int handle, sl_task *task)
{
    if (task->results > 0)
        lua_getiuservalue(L, handle, 1);
    if (task->failed) {
        if (task->results == 0)
            return luaL_error(L, "a task broke: out of memory");
        return lua_error(L);
    }
    if (task->results < 2)
        return task->results;
    luaL_checkstack(L, task->results, "too many results");
    int packed = lua_gettop(L);
    for (int i = 1; i <= task->results; i++)
        lua_rawgeti(L, packed, i);
    return task->results;
}

static int joined(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    (void)ctx;
    return sl_task_push_results(L, 1, lua_touserdata(L, 1));
}

int l_task_join(lua_State *L)
{
    sl_task *task = luaL_checkudata(L, 1, sl_task_type);
    lua_settop(L, 1);
    if (task->state == SL_TASK_ENDED)
        return sl_task_push_results(L, 1, task);
    if (task == sl_core_of(L)->current)
        return luaL_error(L, "task:join: a task cannot join itself");
    return sl_waitlist_wait(L, &task->joiners, "task:join", 0, joined);
}

void sl_task_cancel(sl_task *task, const char *reason)
{
    sl_scope_cancel(&task->base, reason, LUA_NOREF);
}
