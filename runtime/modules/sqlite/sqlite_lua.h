/* SPDX-License-Identifier: MIT */
/* What the files of the binding of SQLite share. */
#ifndef SL_SQLITE_LUA_H
#define SL_SQLITE_LUA_H

#include "../../core/core.h"
#include "sqlite.h"

/** A statement; until it is finalized, which may be after the end of its userdata. */
typedef struct sqlite_node sqlite_node;
struct sqlite_node {
    sqlite3_stmt *statement;
    sqlite_node *next, **link;
    /** The pointer to it in its userdata; NULL without one. */
    sqlite_node **owner;
    /** To be done when the step on the thread has ended. */
    bool to_reset, to_finalize;
    /** Of the execution under way: whether a row has come. */
    bool is_started;
};

/** A database of Lua's; closed in the beginning. */
typedef struct sqlite_box {
    sl_core *core;
    sl_sqlite engine;
    bool is_open;
    sqlite_node *nodes;
    /** Where functions in Lua are called, during a step. */
    lua_State *running;
    /** Of aggregates in Lua: the next one's place among the functions. */
    lua_Integer last_state;
    sl_io io;
    sl_task *waiter;
    /** Those who wait for the end of another one's step. */
    sl_waitlist others;
    sl_close_hook hook;
} sqlite_box;

/** The open database at the index; raises. */
sqlite_box *sl_sqlite_check(lua_State *L, int index);
/** Pushes a value of SQL's; text and blobs as strings. May raise for want of memory. */
void sl_sqlite_push_value(lua_State *L, sqlite3_value *value);
/** Whether the value at the index is a blob; then its bytes. */
const char *sl_sqlite_blob(lua_State *L, int index, size_t *size);
/** nil, the name of the code, the text. */
int sl_sqlite_push_failure(lua_State *L, sqlite_box *box, int code);

/* database:create_function(name, arguments, f, is_deterministic) */
int sl_sqlite_create_function(lua_State *L);
/* database:create_aggregate(name, arguments, start, step, finish) */
int sl_sqlite_create_aggregate(lua_State *L);

/* create(path), appender(path, insert, columns, sweeps, rows, bytes): functions of the module */
int sl_sqlite_create(lua_State *L);
int sl_sqlite_open_appender(lua_State *L);
/** Makes their type known. */
void sl_sqlite_add_appenders(lua_State *L);

#endif
