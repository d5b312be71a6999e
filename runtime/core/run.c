/* SPDX-License-Identifier: MIT */
/* sluice.run(f): the loop, under a Lua that is not ours. */
#include "internal.h"

#include <stdio.h>
#include <unistd.h>

/** The core that sluice.run makes; a userdata, so that it goes with the state. */
typedef struct run_box {
    sl_core *core;
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
    if (sl_core_find(L) == core)
        sl_core_detach(L);
    sl_core_delete(core);
}

static int l_run_gc(lua_State *L)
{
    run_close(L, luaL_checkudata(L, 1, run_type));
    return 0;
}

static void run_report(void *user, const char *text)
{
    lua_State *L = user;
    lua_warning(L, "sluice: ", 1);
    lua_warning(L, text, 0);
}

static void run_log(void *user, const char *line, size_t len)
{
    (void)user;
    fprintf(stderr, "%.*s\n", (int)len, line);
}

static run_box *run_open(lua_State *L)
{
    run_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->core = NULL;
    if (luaL_newmetatable(L, run_type)) {
        lua_pushcfunction(L, l_run_gc);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, l_run_gc);
        lua_setfield(L, -2, "__close");
    }
    lua_setmetatable(L, -2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    sl_core_options options = {
        .capabilities = ~0U,
        .on_error = run_report,
        .on_error_user = lua_tothread(L, -1),
        .on_log = run_log,
        .log_descriptor = STDERR_FILENO,
        .writer_queue = SL_WRITER_QUEUE,
    };
    lua_pop(L, 1);
    box->core = sl_core_new(&options);
    if (!box->core || sl_core_attach(box->core, L) != LUA_OK)
        luaL_error(L, "sluice.run: not enough memory or descriptors for a loop");
    return box;
}

static int l_run_protected(lua_State *L)
{
    sl_core *core = lua_touserdata(L, lua_upvalueindex(1));
    sl_task *task = sl_task_spawn(L, core, &core->root);
    task->observed = true;
    while (task->state != SL_TASK_ENDED) {
        if (!sl_core_pump(core, 0) && task->state != SL_TASK_ENDED && sl_core_wait(core, -1) < 0)
            return luaL_error(L, "sluice.run: every task waits and nothing can wake one");
    }
    return sl_task_push_results(L, 1, task);
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
    lua_insert(L, 2);
    lua_pushlightuserdata(L, box->core);
    lua_pushcclosure(L, l_run_protected, 1);
    lua_insert(L, 3);
    int status = lua_pcall(L, lua_gettop(L) - 3, LUA_MULTRET, 0);
    run_close(L, box);
    sl_coroutine_restore(L, 2);
    if (status != LUA_OK)
        return lua_error(L);
    return lua_gettop(L) - 2;
}
