/* SPDX-License-Identifier: MIT */
/* sluice.run(f): the loop, under a Lua that is not ours. */
#include "internal.h"
#include "signals.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/** The core that sluice.run makes; a userdata, so that it goes with the state. */
typedef struct run_box {
    sl_core *core;
    /** What os.exit has asked for, once the core is gone. */
    bool exiting;
    int exit_status;
} run_box;

static const char run_type[] = "sluice.run";

static void run_close(lua_State *L, run_box *box)
{
    sl_core *core = box->core;
    if (!core)
        return;
    box->core = NULL;
    sl_core_shut_down(core, 1000000);
    sl_core_close(core);
    box->exiting = core->exiting;
    box->exit_status = core->exit_status;
    if (sl_core_find(L) == core)
        sl_core_detach(L);
    sl_core_delete(core);
}

static int l_run_gc(lua_State *L)
{
    run_close(L, luaL_checkudata(L, 1, run_type));
    return 0;
}

/** lua5.4 does not ignore SIGPIPE as the program does, and a script cannot have it do so. */
static void write_to_stderr(const char *prefix, const char *text, size_t length)
{
    sigset_t before;
    sl_signal_hold(SIGPIPE, &before);
    bool failed = fprintf(stderr, "%s%.*s\n", prefix, (int)length, text) < 0;
    sl_signal_release(SIGPIPE, &before, failed);
}

/** As the program does: warnings are off in lua5.4, and an error is never lost. */
static void run_report(void *user, const char *text)
{
    (void)user;
    write_to_stderr("sluice: ", text, strlen(text));
}

static void run_log(void *user, const char *line, size_t len)
{
    (void)user;
    write_to_stderr("", line, len);
}

static run_box *run_open(lua_State *L)
{
    run_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = (run_box){NULL};
    if (luaL_newmetatable(L, run_type)) {
        lua_pushcfunction(L, l_run_gc);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, l_run_gc);
        lua_setfield(L, -2, "__close");
    }
    lua_setmetatable(L, -2);
    sl_core_options options = {
        .capabilities = ~0U,
        .on_error = run_report,
        .on_log = run_log,
        .log_descriptor = STDERR_FILENO,
        .writer_queue = SL_WRITER_QUEUE,
    };
    box->core = sl_core_new(&options);
    if (!box->core || sl_core_attach(box->core, L) != LUA_OK)
        luaL_error(L, "sluice.run: not enough memory or descriptors for a loop");
    return box;
}

static lua_State *main_thread(lua_State *L)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    lua_State *thread = lua_tothread(L, -1);
    lua_pop(L, 1);
    return thread;
}

/**
 * Whether lua5.4 was told to end by Ctrl-C: its handler leaves a hook in the main thread, which
 * only waits for the loop, and raises "interrupted!" when that is over.
 */
static bool is_interrupted(lua_State *thread, lua_Hook before)
{
    lua_Hook hook = lua_gethook(thread);
    int all = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT;
    return hook && hook != before && lua_gethookmask(thread) == all;
}

static int l_run_protected(lua_State *L)
{
    sl_core *core = lua_touserdata(L, lua_upvalueindex(1));
    lua_State *thread = main_thread(L);
    lua_Hook before = lua_gethook(thread);
    sl_task *task = sl_task_spawn(L, core, &core->root);
    task->observed = true;
    bool interrupted = false;
    while (task->state != SL_TASK_ENDED) {
        if (!interrupted && is_interrupted(thread, before)) {
            interrupted = true;
            sl_task_cancel(task, "interrupted");
        }
        if (!sl_core_pump(core, 0) && task->state != SL_TASK_ENDED && sl_core_wait(core, -1) < 0)
            return luaL_error(L, "sluice.run: every task waits and nothing can wake one");
    }
    return sl_task_push_results(L, 1, task);
}

/** os.exit of a task unwinds first, here as in the program; keeps the one that was in the table at
 * the top. */
static void install_exit(lua_State *L)
{
    if (lua_getglobal(L, "os") == LUA_TTABLE) {
        lua_getfield(L, -1, "exit");
        lua_setfield(L, -3, "exit");
        lua_pushcfunction(L, l_core_exit);
        lua_setfield(L, -2, "exit");
    }
    lua_pop(L, 1);
}

static void restore_exit(lua_State *L, int kept)
{
    if (lua_getglobal(L, "os") == LUA_TTABLE) {
        lua_getfield(L, kept, "exit");
        lua_setfield(L, -2, "exit");
    }
    lua_pop(L, 1);
}

static void end_program(lua_State *L, int kept, int status)
{
    lua_getfield(L, kept, "exit");
    lua_pushinteger(L, status);
    lua_pushboolean(L, 1);
    lua_call(L, 2, 0);
}

int l_core_run(lua_State *L)
{
    luaL_checkany(L, 1);
    if (sl_core_find(L))
        return luaL_error(L, "sluice.run: a loop is running already: call the function itself");
    run_box *box = run_open(L);
    lua_insert(L, 1);
    lua_toclose(L, 1);
    sl_coroutine_install(L);
    install_exit(L);
    lua_insert(L, 2);
    lua_pushlightuserdata(L, box->core);
    lua_pushcclosure(L, l_run_protected, 1);
    lua_insert(L, 3);
    int status = lua_pcall(L, lua_gettop(L) - 3, LUA_MULTRET, 0);
    run_close(L, box);
    sl_coroutine_restore(L, 2);
    restore_exit(L, 2);
    if (box->exiting)
        end_program(L, 2, box->exit_status);
    if (status != LUA_OK)
        return lua_error(L);
    return lua_gettop(L) - 2;
}
