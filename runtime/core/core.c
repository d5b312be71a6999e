/* SPDX-License-Identifier: MIT */
/* The core itself: made, tied to a Lua state, pumped, shut down. */
#include "internal.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    /* Resumes between two looks at descriptors and timers: epoll_wait costs as much as 5 of them.
     */
    RESUMES_PER_TURN = 128,
    /* Microseconds of a turn while everything unwinds: tasks that compute are sliced. */
    UNWINDING_TURN = 5000,
};

static const char core_key[] = "sluice.core";
static const char origin_name_key[] = "sluice.origin";

/* ---- life ---- */

sl_core *sl_core_new(const sl_core_options *options)
{
    sl_allocator allocator = options->allocator ? options->allocator : sl_memory_default;
    sl_core *core = allocator(options->allocator_user, NULL, sizeof *core);
    if (!core)
        return NULL;
    memset(core, 0, sizeof *core);
    core->allocator = allocator;
    core->allocator_user = options->allocator_user;
    core->capabilities = options->capabilities;
    core->library_source = options->library_source;
    core->limits = options->limits;
    core->on_error = options->on_error;
    core->on_error_user = options->on_error_user;
    core->on_log = options->on_log;
    core->on_log_user = options->on_log_user;
    core->log_descriptor = options->log_descriptor;
    core->writer_queue = options->writer_queue;
    core->real.core = core;
    core->real.now = sl_clock_read();
    core->slice_end = INT64_MAX;
    core->seen_end = &core->seen;
    core->wake_io.fd = -1;
    sl_scope_init(&core->root, NULL, NULL);
    core->backend = options->backend ? options->backend : sl_backend_libev(core);
    if (!core->backend || sl_wake_open(core) < 0) {
        sl_core_close(core);
        sl_core_delete(core);
        return NULL;
    }
    return core;
}

static int core_attach(lua_State *L)
{
    sl_core *core = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    core->L = lua_tothread(L, -1);
    lua_pushliteral(L, "_scope"); /* lives in the registry: sl_error_origin never makes it */
    lua_rawsetp(L, LUA_REGISTRYINDEX, origin_name_key);
    lua_pushlightuserdata(L, core);
    lua_rawsetp(L, LUA_REGISTRYINDEX, core_key);
    return 0;
}

int sl_core_attach(sl_core *core, lua_State *L)
{
    lua_pushcfunction(L, core_attach);
    lua_pushlightuserdata(L, core);
    return lua_pcall(L, 1, 0, 0);
}

void sl_core_detach(lua_State *L)
{
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, core_key);
}

sl_core *sl_core_find(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, core_key);
    sl_core *core = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return core;
}

sl_core *sl_core_of(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    if (!core || core->closing)
        luaL_error(L, "there is no loop here: call this inside sluice.run(f)");
    return core;
}

static void run_close_hooks(sl_core *core)
{
    while (core->close_hooks) {
        sl_close_hook *hook = core->close_hooks;
        sl_close_hook_remove(hook);
        hook->on_close(hook);
    }
}

void sl_core_close(sl_core *core)
{
    core->closing = true;
    sl_scopes_abandon(core);
    run_close_hooks(core);
    if (core->wake_io.fd >= 0) {
        sl_io_watch(core, &core->wake_io, 0);
        close(core->wake_io.fd);
        core->wake_io.fd = -1;
    }
    if (core->backend)
        core->backend->close(core->backend);
    core->backend = NULL;
    sl_free(core, core->ios);
    core->ios = NULL;
    core->ios_size = 0;
    sl_thread_pool_free(core);
}

void sl_core_delete(sl_core *core)
{
    core->allocator(core->allocator_user, core, 0);
}

void sl_close_hook_add(sl_core *core, sl_close_hook *hook)
{
    hook->next = core->close_hooks;
    hook->previous = &core->close_hooks;
    if (hook->next)
        hook->next->previous = &hook->next;
    core->close_hooks = hook;
}

sl_close_hook *sl_close_hook_find(sl_core *core, void (*on_close)(sl_close_hook *hook))
{
    sl_close_hook *hook = core->close_hooks;
    while (hook && hook->on_close != on_close)
        hook = hook->next;
    return hook;
}

void sl_close_hook_remove(sl_close_hook *hook)
{
    if (!hook->previous)
        return;
    *hook->previous = hook->next;
    if (hook->next)
        hook->next->previous = hook->previous;
    hook->next = NULL;
    hook->previous = NULL;
}

/* ---- the pump ---- */

static void run_ready(sl_core *core)
{
    for (int i = 0; i < RESUMES_PER_TURN; i++) {
        sl_task *task = sl_ready_pop(core);
        if (!task)
            return;
        sl_task_run(core, task);
        if (core->interrupted || core->interrupt_seen) {
            core->interrupted = 0;
            return;
        }
        if (core->slice_end != INT64_MAX && sl_clock_read() >= core->slice_end)
            return;
    }
}

int sl_core_pump(sl_core *core, int64_t budget)
{
    if (core->pumping)
        return -1;
    core->pumping = true;
    core->interrupted = 0;
    core->slice_end = budget > 0 ? sl_clock_read() + budget : INT64_MAX;
    do {
        /* with nothing but what ends a wait there is nothing to see, and after a wait it has been
         * seen: that saves the system call */
        if (core->backend->poll && !core->seen && !core->has_looked && core->ios_open > 1)
            core->backend->poll(core->backend, 0);
        core->has_looked = false;
        int64_t begun = core->seen || core->ready.first ? sl_clock_read() : 0;
        /* half of the budget is for the tasks, whatever arrives */
        sl_io_tell(core, budget > 0 ? core->slice_end - budget / 2 : INT64_MAX);
        if (sl_clock_fire(&core->real) > 0 && begun == 0)
            begun = core->real.now;
        run_ready(core);
        if (begun != 0)
            sl_turn_end(core, begun);
        if (!core->ready.first)
            sl_clock_advance(core);
    } while (core->ready.first && !core->interrupt_seen && sl_clock_read() < core->slice_end &&
             budget > 0);
    if (core->backend->wake_at)
        core->backend->wake_at(core->backend, sl_core_next_due(core));
    core->pumping = false;
    return core->ready.first != NULL || core->seen != NULL;
}

int64_t sl_core_next_due(sl_core *core)
{
    if (core->ready.first || core->seen)
        return 0;
    if (!core->real.heap)
        return -1;
    int64_t delay = core->real.heap->due - sl_clock_read();
    return delay > 0 ? delay : 0;
}

int sl_core_wait(sl_core *core, int64_t timeout)
{
    int64_t delay = sl_core_next_due(core);
    if (delay < 0 && timeout < 0 && core->ios_watched <= 1 && core->outside == 0)
        return -1;
    if (delay < 0 || (timeout >= 0 && timeout < delay))
        delay = timeout;
    core->backend->poll(core->backend, delay);
    core->has_looked = true;
    sl_io_tell(core, INT64_MAX);
    return 0;
}

void sl_core_exit(sl_core *core, int status)
{
    if (core->exiting)
        return;
    core->exiting = true;
    core->exit_status = status;
    sl_scope_cancel(&core->root, "the program ends", LUA_NOREF);
}

/** Waits for a moment, whoever's the loop is: a host's own is not turned here. */
static void wait_briefly(sl_core *core, int64_t limit)
{
    if (core->backend->poll) {
        sl_core_wait(core, limit);
        return;
    }
    int64_t due = sl_core_next_due(core);
    poll(NULL, 0, due >= 0 && due < limit ? (int)(due / 1000) : (int)(limit / 1000));
}

void sl_core_shut_down(sl_core *core, int64_t grace)
{
    if (core->pumping)
        return;
    int64_t end = sl_clock_read() + grace;
    sl_scope_cancel(&core->root, "the instance is shut down", LUA_NOREF);
    for (sl_scope *group = core->groups; group; group = group->outer)
        sl_scope_cancel(group, "the instance is shut down", LUA_NOREF);
    while (core->tasks > 0) {
        int64_t left = end - sl_clock_read();
        if (left <= 0)
            break;
        if (!sl_core_pump(core, UNWINDING_TURN) && core->tasks > 0)
            wait_briefly(core, left < 10000 ? left : 10000);
    }
}

/* ---- what modules ask of the core ---- */

void sl_require_capability(lua_State *L, unsigned capability, const char *operation)
{
    sl_core *core = sl_core_find(L);
    if (core && (core->capabilities & capability) != capability)
        luaL_error(L, "%s is not allowed here: the host did not grant this capability", operation);
}

bool sl_has_capability(lua_State *L, unsigned capability)
{
    sl_core *core = sl_core_find(L);
    return !core || (core->capabilities & capability) == capability;
}

void sl_log(lua_State *L, const char *line, size_t len)
{
    sl_core *core = sl_core_find(L);
    if (core && core->on_log)
        core->on_log(core->on_log_user, line, len);
}

int sl_log_descriptor(sl_core *core)
{
    return core->log_descriptor;
}

void sl_complain(sl_core *core, const char *text)
{
    if (core->on_error)
        core->on_error(core->on_error_user, text);
}

size_t sl_writer_queue(sl_core *core)
{
    return core->writer_queue;
}

void sl_error_push(lua_State *L, const char *kind, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    lua_createtable(L, 0, 4);
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    lua_pushstring(L, text);
    lua_setfield(L, -2, "message");
    luaL_setmetatable(L, "sluice.error");
}
