/* SPDX-License-Identifier: MIT */
/* Lua's view of appenders: rows that the writer's thread inserts. */
#include "appender.h"
#include "sqlite_lua.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char appender_lua_type[] = "sluice.sqlite.appender";

enum {
    APPENDER_COLUMNS = 1, /* the user value: the names of the columns */
    /* Microseconds between two looks, and how many, where a task cannot wait for the thread. */
    FLUSH_PAUSE = 200,
    FLUSH_LOOKS = 25000,
};

typedef struct appender_box {
    /** NULL: closed, by the script or with the instance. */
    sl_sink *sink;
    sl_row row;
    /** Rows lost that add() has told of. */
    uint64_t told;
} appender_box;

/** A task that waits for the rows so far. */
typedef struct appender_wait {
    sl_flush flush;
    sl_task *waiter;
} appender_wait;

static appender_box *check_appender(lua_State *L)
{
    return luaL_checkudata(L, 1, appender_lua_type);
}

static void check_sweeps(lua_State *L, int index, sl_appender_plan *plan)
{
    luaL_checktype(L, index, LUA_TTABLE);
    luaL_argcheck(L, lua_rawlen(L, index) <= SL_APPENDER_SWEEPS, index, "too many statements");
    for (int i = 0; i < (int)lua_rawlen(L, index); i++) {
        lua_rawgeti(L, index, i + 1);
        plan->sweeps[i] = luaL_checkstring(L, -1);
        lua_pop(L, 1); /* the table holds it on */
    }
}

/** Makes the file for us alone where it is missing. Returns 0, or an errno value. */
static int make_private(const char *path)
{
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0 || errno == EEXIST ? 0 : errno;
}

/* create(path) -> true | nil, text: what only the owner may read, unless it is there */
int sl_sqlite_create(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    sl_require_capability(L, SL_CAN_WRITE_FILES, "writing a database");
    int failure = make_private(path);
    if (failure) {
        lua_pushnil(L);
        lua_pushstring(L, strerror(failure));
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* appender(path, insert, columns, sweeps, rows, bytes) -> appender | nil, code, text */
int sl_sqlite_open_appender(lua_State *L)
{
    sl_appender_plan plan = {.path = luaL_checkstring(L, 1), .insert = luaL_checkstring(L, 2)};
    sl_core *core = sl_core_of(L);
    luaL_checktype(L, 3, LUA_TTABLE);
    check_sweeps(L, 4, &plan);
    plan.rows = (unsigned)luaL_checkinteger(L, 5);
    plan.bytes = (unsigned)luaL_checkinteger(L, 6);
    sl_require_capability(L, SL_CAN_READ_FILES | SL_CAN_WRITE_FILES, "writing a database");
    appender_box *box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = (appender_box){.sink = NULL};
    luaL_setmetatable(L, appender_lua_type);
    lua_pushvalue(L, 3);
    lua_setiuservalue(L, -2, APPENDER_COLUMNS);
    int code;
    sl_sink *sink = sl_appender_open(&plan, &code);
    sl_writer *writer = sink ? sl_writer_of(core) : NULL;
    if (writer) {
        sl_writer_add(writer, sink, &box->sink);
        return 1;
    }
    if (sink)
        sl_appender_discard(sink);
    lua_pushnil(L);
    lua_pushstring(L, sl_sqlite_code_name(sink ? SQLITE_NOMEM : code));
    lua_pushstring(L, sqlite3_errstr(sink ? SQLITE_NOMEM : code));
    return 3;
}

static bool add_value(lua_State *L, sl_row *row)
{
    size_t length;
    const char *text;
    switch (lua_type(L, -1)) {
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1))
            return sl_row_add_integer(row, lua_tointeger(L, -1));
        return sl_row_add_float(row, lua_tonumber(L, -1));
    case LUA_TSTRING:
        text = lua_tolstring(L, -1, &length);
        return sl_row_add_text(row, text, length);
    case LUA_TBOOLEAN:
        return sl_row_add_integer(row, lua_toboolean(L, -1));
    default:
        return sl_row_add_null(row);
    }
}

/** Rows that were lost and not told of; they are told of now. */
static uint64_t newly_lost(appender_box *box)
{
    uint64_t lost = sl_sink_dropped(box->sink) + atomic_load(&box->sink->failed);
    uint64_t fresh = lost - box->told;
    box->told = lost;
    return fresh;
}

/*
 * appender:add(row) -> rows that were lost since the last call | nil: it is closed
 * A column that the row does not have is NULL. Never waits.
 */
static int l_appender_add(lua_State *L)
{
    appender_box *box = check_appender(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    if (!box->sink)
        return 0;
    lua_settop(L, 2);
    lua_getiuservalue(L, 1, APPENDER_COLUMNS);
    lua_Integer count = (lua_Integer)lua_rawlen(L, 3);
    box->row.length = 0;
    bool is_whole = true;
    for (lua_Integer i = 1; i <= count && is_whole; i++) {
        lua_rawgeti(L, 3, i);
        lua_rawget(L, 2);
        is_whole = add_value(L, &box->row);
        lua_pop(L, 1);
    }
    if (!is_whole)
        return luaL_error(L, "not enough memory");
    sl_record record = {.bytes = box->row.bytes, .length = box->row.length};
    sl_sink_push(box->sink, &record);
    lua_pushinteger(L, (lua_Integer)newly_lost(box));
    return 1;
}

/* appender:counts() -> rows queued, dropped for want of room, failed, why (a code of SQLite's or
 * nil) | nil when it is closed */
static int l_appender_counts(lua_State *L)
{
    appender_box *box = check_appender(L);
    if (!box->sink)
        return 0;
    int failure = sl_appender_failure(box->sink);
    lua_pushinteger(L, (lua_Integer)sl_sink_queued(box->sink));
    lua_pushinteger(L, (lua_Integer)sl_sink_dropped(box->sink));
    lua_pushinteger(L, (lua_Integer)atomic_load(&box->sink->failed));
    if (failure)
        lua_pushstring(L, sl_sqlite_code_name(failure));
    else
        lua_pushnil(L);
    return 4;
}

/* appender:close(): what was added is written, then the file is closed. Idempotent, never waits. */
static int l_appender_close(lua_State *L)
{
    appender_box *box = check_appender(L);
    sl_sink_close(box->sink);
    free(box->row.bytes);
    box->row = (sl_row){.bytes = NULL};
    return 0;
}

/* ---- waiting ---- */

static void on_appender_flushed(sl_flush *flush)
{
    sl_wake(((appender_wait *)(void *)flush)->waiter);
}

static void cancel_appender_flush(sl_task *task, void *object)
{
    (void)task;
    sl_flush_stop(&((appender_wait *)object)->flush);
}

static int appender_flushed(lua_State *L, int status, lua_KContext ctx)
{
    (void)L;
    (void)status;
    (void)ctx;
    return 0;
}

/** In simulated time nobody waits for a thread: this holds up the loop. */
static void flush_here(sl_sink *sink)
{
    const struct timespec pause = {.tv_nsec = FLUSH_PAUSE * 1000};
    for (int i = 0; i < FLUSH_LOOKS && sl_sink_queued(sink) > 0; i++)
        nanosleep(&pause, NULL);
}

/* appender:flush(): waits until all rows so far are written, or lost */
static int l_appender_flush(lua_State *L)
{
    appender_box *box = check_appender(L);
    if (!box->sink)
        return 0;
    if (!sl_can_wait_outside(L)) {
        flush_here(box->sink);
        return 0;
    }
    sl_core *core = sl_core_of(L);
    sl_wait_check(L);
    appender_wait *wait = lua_newuserdatauv(L, sizeof *wait, 0);
    *wait = (appender_wait){.flush = {.on_done = on_appender_flushed}};
    wait->waiter = sl_task_current(core);
    if (!sl_writer_flush(sl_writer_of(core), &wait->flush))
        return 0;
    return sl_wait_checked(L, "capture", cancel_appender_flush, wait, 0, appender_flushed);
}

static const luaL_Reg appender_methods[] = {
    {"add", l_appender_add},
    {"counts", l_appender_counts},
    {"flush", l_appender_flush},
    {"close", l_appender_close},
    {NULL, NULL},
};

static const luaL_Reg appender_metamethods[] = {
    {"__gc", l_appender_close},
    {"__close", l_appender_close},
    {NULL, NULL},
};

void sl_sqlite_add_appenders(lua_State *L)
{
    luaL_newmetatable(L, appender_lua_type);
    luaL_setfuncs(L, appender_metamethods, 0);
    luaL_newlib(L, appender_methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
