/* SPDX-License-Identifier: MIT */
/* How busy the loop is: turns, the time they took, the longest of late. */
#include "internal.h"

enum {
    /* Microseconds after which a window of the longest turn ends; the one before it still counts.
     */
    LAG_WINDOW = 10000000,
};

static void lag_advance(sl_core *core, int64_t now)
{
    if (now - core->lag_since < LAG_WINDOW)
        return;
    core->lag_before = now - core->lag_since < 2 * LAG_WINDOW ? core->lag : 0;
    core->lag = 0;
    core->lag_since = now;
}

void sl_turn_end(sl_core *core, int64_t begun)
{
    int64_t now = sl_clock_read(), took = now - begun;
    core->turns++;
    core->busy += took;
    lag_advance(core, now);
    if (took > core->lag)
        core->lag = took;
}

static void set_stat(lua_State *L, const char *name, uint64_t count)
{
    lua_pushinteger(L, (lua_Integer)count);
    lua_setfield(L, -2, name);
}

static void set_stat_seconds(lua_State *L, const char *name, int64_t microseconds)
{
    lua_pushnumber(L, (lua_Number)microseconds / 1e6);
    lua_setfield(L, -2, name);
}

/* stats() -> { tasks, descriptors, turns, busy, lag } */
int l_core_stats(lua_State *L)
{
    sl_core *core = sl_core_of(L);
    lag_advance(core, sl_clock_read());
    lua_createtable(L, 0, 5);
    set_stat(L, "tasks", core->tasks);
    /* without the one that other threads wake us by */
    set_stat(L, "descriptors", core->ios_open > 0 ? core->ios_open - 1 : 0);
    set_stat(L, "turns", core->turns);
    set_stat_seconds(L, "busy", core->busy);
    set_stat_seconds(L, "lag", core->lag > core->lag_before ? core->lag : core->lag_before);
    return 1;
}
