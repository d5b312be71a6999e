/* SPDX-License-Identifier: MIT */
/*
 * A SQLite database whose long statements do not hold up their owner; no Lua.
 *
 * A step runs on the owner's thread, in which SQLite asks now and then whether to go on. A step
 * that only reads and takes longer than a slice is given up and made again on a thread of its own,
 * for which the owner waits; nothing else may touch the database meanwhile.
 */
#ifndef SL_SQLITE_H
#define SL_SQLITE_H

#include <sqlite3.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    /* Instructions of SQLite's machine between two questions: about 20 us. */
    SL_SQLITE_OPERATIONS = 1000,
    /* Microseconds that a step, or a row after the other, holds up the owner. */
    SL_SQLITE_SLICE = 1000,
    /* From sl_sqlite_step: it has to be made again by sl_sqlite_start. */
    SL_SQLITE_LONG = -1,
};

typedef struct sl_sqlite {
    sqlite3 *db;
    /** Whether SQL may open further files: ATTACH, VACUUM INTO. */
    bool may_open_files;
    /** Functions that run on the owner's thread only are defined: no step moves to another one. */
    bool is_bound_to_thread;
    /** Whether a thread may be started at all. */
    bool may_start_threads;
    /** Asked on the owner's thread during a step; true gives it up with SQLITE_INTERRUPT. */
    bool (*should_stop)(void *user, unsigned operations);
    void *user;
    /** The step under way on the owner's thread: when it is too long, whether it was. */
    int64_t slice_end;
    bool was_long;
    /** The step under way on a thread: `event` can be read once it has ended. */
    bool is_running;
    atomic_bool is_stopping;
    pthread_t thread;
    int event, result;
    sqlite3_stmt *statement;
} sl_sqlite;

/** Opens; the fields above `slice_end` are set before. Returns SQLITE_OK or a code; `self->db` is
 * to be closed in either case, and has the message unless it is NULL. */
int sl_sqlite_open(sl_sqlite *self, const char *path, bool read_only);
/** Idempotent. Ends a step under way. All statements have been finalized. */
void sl_sqlite_close(sl_sqlite *self);

/** As sqlite3_step. `is_first`: of this execution. SL_SQLITE_LONG: the statement was reset. */
int sl_sqlite_step(sl_sqlite *self, sqlite3_stmt *statement, bool is_first);
/** Starts the step on a thread. Returns 0, or an errno value. */
int sl_sqlite_start(sl_sqlite *self, sqlite3_stmt *statement);
/** Waits for its end: as sqlite3_step. */
int sl_sqlite_end(sl_sqlite *self);
/** Gives the step on the thread up and waits for its end, which comes at once. */
void sl_sqlite_stop(sl_sqlite *self);

/** Microseconds on a clock that never steps back. */
int64_t sl_sqlite_now(void);
/** "SQLITE_CONSTRAINT_UNIQUE" for an extended code; static. */
const char *sl_sqlite_code_name(int code);

#endif
