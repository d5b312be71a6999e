/* SPDX-License-Identifier: MIT */
/* sluice.core.process: runs a program to its end. Internal: for commands that print a token. */
#include "process.h"

#include <errno.h>
#include <string.h>

LUAMOD_API int luaopen_sluice_core_process(lua_State *L);

static const char process_type[] = "sluice.process";

enum {
    MAX_WORDS = 4096,
    MAX_KEPT = 16 * 1024 * 1024,
};

/** One run; a child lives no longer than it. */
typedef struct process_run {
    sl_process *process; /* NULL when there is none */
    sl_task *waiter;
    sl_close_hook hook;
} process_run;

static void on_run_end(void *user)
{
    process_run *run = user;
    sl_task *waiter = run->waiter;
    run->waiter = NULL;
    if (waiter)
        sl_wake(waiter);
}

/** The one way out: the end, cancellation, __close, __gc and the end of the core. */
static void process_run_close(process_run *run)
{
    sl_process *process = run->process;
    run->process = NULL;
    run->waiter = NULL;
    sl_close_hook_remove(&run->hook);
    if (process)
        sl_process_delete(process);
}

static void on_run_core_close(sl_close_hook *hook)
{
    process_run_close((process_run *)(void *)((char *)hook - offsetof(process_run, hook)));
}

static void cancel_run(sl_task *task, void *object)
{
    (void)task;
    process_run_close(object);
}

static int l_run_close(lua_State *L)
{
    process_run_close(lua_touserdata(L, 1));
    return 0;
}

static int push_run_failure(lua_State *L, int error)
{
    lua_pushnil(L);
    lua_pushstring(L, strerror(error));
    lua_pushinteger(L, error);
    return 3;
}

static int k_process_run(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    process_run *run = (process_run *)ctx;
    if (!run->process)
        return push_run_failure(L, ECANCELED);
    sl_process_result result = sl_process_get_result(run->process);
    lua_createtable(L, 0, 5);
    lua_pushlstring(L, result.out, result.out_length);
    lua_setfield(L, -2, "out");
    lua_pushlstring(L, result.err, result.err_length);
    lua_setfield(L, -2, "err");
    if (result.signal) {
        lua_pushinteger(L, result.signal);
        lua_setfield(L, -2, "signal");
    } else if (result.status >= 0) {
        lua_pushinteger(L, result.status);
        lua_setfield(L, -2, "status");
    }
    lua_pushboolean(L, result.overflowed);
    lua_setfield(L, -2, "overflowed");
    process_run_close(run);
    return 1;
}

static size_t check_limit(lua_State *L, int index)
{
    lua_Integer limit = luaL_checkinteger(L, index);
    luaL_argcheck(L, limit >= 0 && limit <= MAX_KEPT, index, "0 to 16777216 bytes");
    return (size_t)limit;
}

/** The words of the array at 1 as argv, in a userdata at the top of the stack. */
static char **check_argv(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer count = luaL_len(L, 1);
    luaL_argcheck(L, count >= 1 && count <= MAX_WORDS, 1, "1 to 4096 words");
    char **argv = lua_newuserdatauv(L, ((size_t)count + 1) * sizeof *argv, 0);
    for (lua_Integer i = 0; i < count; i++) {
        size_t length;
        luaL_argcheck(L, lua_rawgeti(L, 1, i + 1) == LUA_TSTRING, 1, "the words are strings");
        const char *word = lua_tolstring(L, -1, &length);
        luaL_argcheck(L, strlen(word) == length, 1, "a word cannot hold a zero byte");
        argv[i] = (char *)word; /* posix_spawn only reads them; the table keeps them alive */
        lua_pop(L, 1);
    }
    argv[count] = NULL;
    luaL_argcheck(L, argv[0][0], 1, "the name of a program is needed");
    return argv;
}

/*
 * run(argv, max_out, max_err) -> { out =, err =, status = | signal =, overflowed = } | nil, text,
 * errno
 *
 * Waits until the program has ended. `out` has the first max_out bytes that it printed; one that
 * prints more is killed. `err` has the last max_err bytes. Neither status nor signal: a host that
 * waits for every child has taken it. Cancelled, or past a deadline, the program is killed.
 */
static int l_process_run(lua_State *L)
{
    size_t max_out = check_limit(L, 2), max_err = check_limit(L, 3);
    char **argv = check_argv(L);
    /* the program gets this process's environment, and can print it */
    sl_require_capability(L, SL_CAN_SPAWN_PROCESSES | SL_CAN_READ_ENVIRONMENT, "running a program");
    sl_require_real_time(L, "running a program");
    sl_wait_check(L);
    sl_core *core = sl_core_of(L);
    process_run *run = lua_newuserdatauv(L, sizeof *run, 0);
    memset(run, 0, sizeof *run);
    run->hook.on_close = on_run_core_close;
    luaL_setmetatable(L, process_type);
    lua_toclose(
        L, -1); /* a deadline may pass while the child is started: then sl_wait raises at once */
    run->process = sl_process_new(core, argv, max_out, max_err, on_run_end, run);
    if (!run->process)
        return push_run_failure(L, errno);
    sl_close_hook_add(core, &run->hook);
    run->waiter = sl_task_current(core);
    return sl_wait(L, "process.run", cancel_run, run, (lua_KContext)run, k_process_run);
}

static const luaL_Reg process_functions[] = {
    {"run", l_process_run},
    {NULL, NULL},
};

int luaopen_sluice_core_process(lua_State *L)
{
    luaL_newmetatable(L, process_type);
    lua_pushcfunction(L, l_run_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_run_close);
    lua_setfield(L, -2, "__close");
    luaL_newlib(L, process_functions);
    return 1;
}
