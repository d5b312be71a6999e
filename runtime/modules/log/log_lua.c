/* SPDX-License-Identifier: MIT */
/* The module sluice.core.log: places for log lines. */
#include "log.h"

#include <errno.h>
#include <string.h>

LUAMOD_API int luaopen_sluice_core_log(lua_State *L);

static const char place_type[] = "sluice.core.log";

typedef struct place {
    /** NULL: closed, by the script or with the instance. */
    sl_sink *sink;
} place;

/** A task that waits for what was written. */
typedef struct place_flush {
    sl_flush flush;
    sl_task *waiter;
} place_flush;

static place *check_place(lua_State *L)
{
    return luaL_checkudata(L, 1, place_type);
}

static place *new_place(lua_State *L)
{
    place *self = lua_newuserdatauv(L, sizeof *self, 0);
    self->sink = NULL;
    luaL_setmetatable(L, place_type);
    return self;
}

/** Gives the sink, or nil, text and errno. */
static int keep_sink(lua_State *L, sl_core *core, place *self, sl_sink *sink, int failure)
{
    sl_writer *writer = sl_writer_of(core);
    if (sink && writer) {
        sl_writer_add(writer, sink, &self->sink);
        return 1;
    }
    if (sink) {
        sl_log_discard(sink);
        failure = ENOMEM;
    }
    lua_pushnil(L);
    lua_pushstring(L, strerror(failure));
    lua_pushinteger(L, failure);
    return 3;
}

/* open(path) -> place | nil, text, errno */
static int l_place_open(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    sl_core *core = sl_core_of(L);
    sl_require_capability(L, SL_CAN_WRITE_FILES, "writing a log file");
    place *self = new_place(L);
    int failure = ENOMEM;
    sl_sink *sink = sl_log_open_file(path, &failure);
    return keep_sink(L, core, self, sink, failure);
}

/* host() -> the place that the host has for log lines | nil: it takes them itself */
static int l_place_host(lua_State *L)
{
    sl_core *core = sl_core_of(L);
    int fd = sl_log_descriptor(core), failure = ENOMEM;
    if (fd <= 0)
        return 0;
    place *self = new_place(L);
    sl_sink *sink = sl_log_open_descriptor(fd, &failure);
    return keep_sink(L, core, self, sink, failure);
}

/* place:push(line) -> true | false: it was dropped | nil: the place is closed */
static int l_place_push(lua_State *L)
{
    place *self = check_place(L);
    sl_record record = {.tag = SL_LOG_LINE};
    record.bytes = luaL_checklstring(L, 2, &record.length);
    if (!self->sink)
        return 0;
    lua_pushboolean(L, sl_sink_push(self->sink, &record));
    return 1;
}

static int l_place_is_terminal(lua_State *L)
{
    place *self = check_place(L);
    lua_pushboolean(L, self->sink && sl_log_is_terminal(self->sink));
    return 1;
}

/* place:set_plain(is_plain): what the place says itself is for people; before the first line */
static int l_place_set_plain(lua_State *L)
{
    place *self = check_place(L);
    if (self->sink)
        sl_log_set_plain(self->sink, lua_toboolean(L, 2));
    return 0;
}

/* place:counts() -> lines queued, dropped for want of room, failed | nil when it is closed */
static int l_place_counts(lua_State *L)
{
    place *self = check_place(L);
    if (!self->sink)
        return 0;
    lua_pushinteger(L, (lua_Integer)sl_sink_queued(self->sink));
    lua_pushinteger(L, (lua_Integer)sl_sink_dropped(self->sink));
    lua_pushinteger(L, (lua_Integer)atomic_load(&self->sink->failed));
    return 3;
}

static int l_place_close(lua_State *L)
{
    place *self = check_place(L);
    sl_sink_close(self->sink);
    return 0;
}

/* ---- waiting ---- */

static void on_place_flushed(sl_flush *flush)
{
    place_flush *self = (place_flush *)(void *)flush;
    sl_wake(self->waiter);
}

static void cancel_place_flush(sl_task *task, void *object)
{
    (void)task;
    sl_flush_stop(&((place_flush *)object)->flush);
}

static int place_flushed(lua_State *L, int status, lua_KContext ctx)
{
    (void)L;
    (void)status;
    (void)ctx;
    return 0;
}

/* place:flush(): waits until all lines so far are written, or lost */
static int l_place_flush(lua_State *L)
{
    place *self = check_place(L);
    if (!self->sink)
        return 0;
    sl_core *core = sl_core_of(L);
    sl_wait_check(L);
    place_flush *wait = lua_newuserdatauv(L, sizeof *wait, 0);
    *wait = (place_flush){.flush = {.on_done = on_place_flushed}};
    wait->waiter = sl_task_current(core);
    if (!sl_writer_flush(sl_writer_of(core), &wait->flush))
        return 0;
    return sl_wait_checked(L, "log.flush", cancel_place_flush, wait, 0, place_flushed);
}

static const luaL_Reg place_functions[] = {
    {"open", l_place_open},
    {"host", l_place_host},
    {NULL, NULL},
};

static const luaL_Reg place_methods[] = {
    {"push", l_place_push},
    {"is_terminal", l_place_is_terminal},
    {"set_plain", l_place_set_plain},
    {"counts", l_place_counts},
    {"flush", l_place_flush},
    {"close", l_place_close},
    {NULL, NULL},
};

static const luaL_Reg place_metamethods[] = {
    {"__gc", l_place_close},
    {"__close", l_place_close},
    {NULL, NULL},
};

int luaopen_sluice_core_log(lua_State *L)
{
    luaL_newmetatable(L, place_type);
    luaL_setfuncs(L, place_metamethods, 0);
    luaL_newlib(L, place_methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, place_functions);
    return 1;
}
