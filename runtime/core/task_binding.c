/* SPDX-License-Identifier: MIT */
/* The module sluice.core.task: what lua/sluice/task.lua is made of. */
#include "internal.h"

#include <math.h>

/* ---- functions ---- */

/* The running task's innermost scope owns the new task. */
static int l_task_spawn(lua_State *L)
{
    luaL_checkany(L, 1);
    sl_core *core = sl_core_of(L);
    sl_task_spawn(L, core, core->current ? core->current->scope : &core->root);
    return 1;
}

static int64_t sleep_due(lua_State *L, sl_task *task)
{
    lua_Number seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, !isnan(seconds), 1, "a number of seconds expected, got nan");
    if (seconds <= 0)
        return INT64_MIN;
    if (seconds > 1e12)
        seconds = 1e12;
    int64_t now = task->clock->simulated ? task->clock->now : sl_clock_read();
    return now + (int64_t)(seconds * 1e6);
}

static int l_task_sleep(lua_State *L)
{
    sl_wait_check(L);
    sl_task *task = sl_core_of(L)->current;
    return sl_wait_until(L, task, sleep_due(L, task));
}

static sl_clock *clock_of(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    if (!core)
        return NULL;
    return core->current ? core->current->clock : &core->real;
}

int64_t sl_now_running(lua_State *L)
{
    sl_clock *clock = clock_of(L);
    return clock && clock->simulated ? clock->now : sl_clock_read();
}

static int l_task_now(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)sl_now_running(L) / 1e6);
    return 1;
}

double sl_wall_running(lua_State *L)
{
    sl_clock *clock = clock_of(L);
    sl_clock real = {.simulated = false};
    return sl_clock_wall(clock ? clock : &real);
}

static int l_task_wall(lua_State *L)
{
    lua_pushnumber(L, sl_wall_running(L));
    return 1;
}

static int l_task_cancelled(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    lua_pushboolean(L, core && core->current && sl_is_pending(core->current));
    return 1;
}

static int l_task_time_left(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    sl_task *task = core ? core->current : NULL;
    lua_Number seconds = HUGE_VAL;
    if (task && task->scope->due != INT64_MAX)
        seconds = (lua_Number)(task->scope->due - sl_now_running(L)) / 1e6;
    lua_pushnumber(L, seconds < 0 ? 0 : seconds);
    return 1;
}

static int l_task_check(lua_State *L)
{
    sl_wait_check(L);
    return 0;
}

int l_core_exit(lua_State *L)
{
    sl_core *core = sl_core_of(L);
    sl_require_capability(L, SL_CAN_EXIT, "os.exit");
    int status = 0;
    if (lua_isboolean(L, 1))
        status = lua_toboolean(L, 1) ? 0 : 1;
    else
        status = (int)luaL_optinteger(L, 1, 0);
    sl_core_exit(core, status);
    if (core->current && sl_pending_push(L, core->current))
        return lua_error(L);
    return 0;
}

static int l_core_log(lua_State *L)
{
    size_t len;
    const char *line = luaL_checklstring(L, 1, &len);
    if (len > 0 && line[len - 1] == '\n')
        len--;
    sl_log(L, line, len);
    return 0;
}

/* ---- handles ---- */

static int l_task_cancel(lua_State *L)
{
    sl_task *task = luaL_checkudata(L, 1, sl_task_type);
    if (task->state == SL_TASK_ENDED || task->base.cancelled)
        return 0;
    int ref = LUA_NOREF;
    if (!lua_isnoneornil(L, 2)) {
        lua_settop(L, 2);
        ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    sl_scope_cancel(&task->base, NULL, ref);
    return 0;
}

static const char *const task_states[] = {"new", "ready", "running", "waiting", "ended"};

static int l_task_status(lua_State *L)
{
    sl_task *task = luaL_checkudata(L, 1, sl_task_type);
    if (task->state == SL_TASK_ENDED)
        lua_pushstring(L, task->failed ? "failed" : "done");
    else
        lua_pushstring(L, task_states[task->state]);
    return 1;
}

static int l_task_tostring(lua_State *L)
{
    sl_task *task = luaL_checkudata(L, 1, sl_task_type);
    l_task_status(L);
    lua_pushfstring(L, "sluice.task: %I (%s)", (LUAI_UACINT)task->base.serial, lua_tostring(L, -1));
    return 1;
}

/* What an err says where a script has not loaded the library's own. */
static int l_error_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "message");
    lua_getfield(L, 1, "kind");
    const char *message = luaL_optstring(L, -2, "?");
    lua_pushfstring(L, "%s (%s)", message, luaL_optstring(L, -1, "?"));
    return 1;
}

/* ---- conditions: what semaphores and channels are made of ---- */

static const char condition_type[] = "sluice.condition";

typedef struct condition {
    sl_waitlist waiters;
} condition;

static int l_condition_new(lua_State *L)
{
    condition *self = lua_newuserdatauv(L, sizeof *self, 1);
    self->waiters = (sl_waitlist){NULL, NULL};
    luaL_setmetatable(L, condition_type);
    /* the text that task.tree() shows must live as long as the object */
    lua_pushstring(L, luaL_optstring(L, 1, "a condition"));
    lua_setiuservalue(L, -2, 1);
    return 1;
}

static int condition_signalled(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    (void)ctx;
    lua_pushboolean(L, 1);
    return 1;
}

static int l_condition_wait(lua_State *L)
{
    condition *self = luaL_checkudata(L, 1, condition_type);
    lua_settop(L, 1);
    lua_getiuservalue(L, 1, 1);
    const char *what = lua_tostring(L, -1);
    lua_pop(L, 1);
    return sl_waitlist_wait(L, &self->waiters, what, 0, condition_signalled);
}

static int l_condition_signal(lua_State *L)
{
    condition *self = luaL_checkudata(L, 1, condition_type);
    lua_Integer count = luaL_optinteger(L, 2, 1);
    luaL_argcheck(L, count >= 0, 2, "a count expected");
    lua_pushinteger(L, (lua_Integer)sl_waitlist_wake(&self->waiters, (size_t)count));
    return 1;
}

static int l_condition_broadcast(lua_State *L)
{
    condition *self = luaL_checkudata(L, 1, condition_type);
    lua_pushinteger(L, (lua_Integer)sl_waitlist_wake(&self->waiters, SIZE_MAX));
    return 1;
}

/* ---- tables ---- */

static const luaL_Reg task_functions[] = {
    {"spawn", l_task_spawn},
    {"sleep", l_task_sleep},
    {"now", l_task_now},
    {"wall", l_task_wall},
    {"tree", l_task_tree},
    {"stats", l_core_stats},
    {"cancelled", l_task_cancelled},
    {"check", l_task_check},
    {"get_local", l_local_get},
    {"set_local", l_local_set},
    {"time_left", l_task_time_left},
    {"scope", l_scope_run},
    {"timeout", l_scope_timeout},
    {"shield", l_scope_shield},
    {"simulate", l_scope_simulate},
    {"group", l_group_new},
    {"condition", l_condition_new},
    {"run", l_core_run},
    {"exit", l_core_exit},
    {"log", l_core_log},
    {NULL, NULL},
};

static const luaL_Reg task_methods[] = {
    {"join", l_task_join},
    {"cancel", l_task_cancel},
    {"status", l_task_status},
    {NULL, NULL},
};

static const luaL_Reg condition_methods[] = {
    {"wait", l_condition_wait},
    {"signal", l_condition_signal},
    {"broadcast", l_condition_broadcast},
    {NULL, NULL},
};

static void register_type(lua_State *L, const char *name, const luaL_Reg *methods)
{
    luaL_newmetatable(L, name);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

int luaopen_sluice_core_task(lua_State *L)
{
    register_type(L, sl_task_type, task_methods);
    luaL_getmetatable(L, sl_task_type);
    lua_pushcfunction(L, l_task_tostring);
    lua_setfield(L, -2, "__tostring");
    register_type(L, condition_type, condition_methods);
    sl_scope_register(L);
    luaL_newlib(L, task_functions);
    /* the one metatable of err tables: the library fills it, C only sets it */
    if (luaL_newmetatable(L, "sluice.error")) {
        lua_pushcfunction(L, l_error_tostring);
        lua_setfield(L, -2, "__tostring");
    }
    lua_setfield(L, -2, "error_metatable");
    return 1;
}
