/* SPDX-License-Identifier: MIT */
/* Rows for one table, inserted on the writer's thread; no Lua. */
#include "appender.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    /* Milliseconds between two looks at a database that another program has, and how many. */
    BUSY_PAUSE = 10,
    BUSY_LOOKS = 500,
    /* A row has room for this much in the beginning. */
    ROW_SIZE = 512,
};

/** Before each value of a row. */
enum row_tag {
    ROW_NULL,
    ROW_INTEGER,
    ROW_FLOAT,
    ROW_TEXT,
};

typedef struct appender {
    sl_sink base;
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *rollback, *insert, *sweeps[SL_APPENDER_SWEEPS];
    unsigned rows, bytes; /* between two sweeps */
    size_t new_rows, new_bytes;
    /** The clocks when it was opened, in milliseconds. */
    int64_t wall, monotonic;
    _Atomic int failure;
} appender;

static int64_t clock_milliseconds(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/** By the wall clock, but not farther than time has gone by: a clock that is set forward makes no
 * row old. */
static int64_t appender_now(const appender *self)
{
    int64_t wall = clock_milliseconds(CLOCK_REALTIME);
    int64_t most = self->wall + clock_milliseconds(CLOCK_MONOTONIC) - self->monotonic;
    return wall < most ? wall : most;
}

/* ---- rows ---- */

static char *row_reserve(sl_row *row, size_t more)
{
    size_t needed = row->length + more;
    if (needed > row->size) {
        size_t size = needed < ROW_SIZE ? ROW_SIZE : needed + needed / 2;
        char *bytes = realloc(row->bytes, size);
        if (!bytes)
            return NULL;
        row->bytes = bytes;
        row->size = size;
    }
    char *at = row->bytes + row->length;
    row->length = needed;
    return at;
}

static bool row_add(sl_row *row, enum row_tag tag, const void *value, size_t size)
{
    char *at = row_reserve(row, 1 + size);
    if (!at)
        return false;
    *at = (char)tag;
    memcpy(at + 1, value, size);
    return true;
}

bool sl_row_add_null(sl_row *row)
{
    return row_add(row, ROW_NULL, "", 0);
}

bool sl_row_add_integer(sl_row *row, int64_t value)
{
    return row_add(row, ROW_INTEGER, &value, sizeof value);
}

bool sl_row_add_float(sl_row *row, double value)
{
    return row_add(row, ROW_FLOAT, &value, sizeof value);
}

bool sl_row_add_text(sl_row *row, const char *text, size_t length)
{
    if (!row_add(row, ROW_TEXT, &length, sizeof length))
        return false;
    char *at = row_reserve(row, length);
    if (at)
        memcpy(at, text, length);
    return at != NULL;
}

/** Binds the next value; the bytes stay valid until the statement is reset. */
static int bind_next(sqlite3_stmt *insert, int place, const char **at)
{
    union {
        int64_t integer;
        double number;
        size_t length;
    } value;
    enum row_tag tag = (enum row_tag) * (*at)++;
    if (tag == ROW_NULL)
        return sqlite3_bind_null(insert, place);
    memcpy(&value, *at, sizeof value);
    *at += sizeof value;
    if (tag == ROW_INTEGER)
        return sqlite3_bind_int64(insert, place, value.integer);
    if (tag == ROW_FLOAT)
        return sqlite3_bind_double(insert, place, value.number);
    const char *text = *at;
    *at += value.length;
    return sqlite3_bind_text64(insert, place, text, value.length, SQLITE_STATIC, SQLITE_UTF8);
}

_Static_assert(sizeof(size_t) == sizeof(int64_t) && sizeof(double) == sizeof(int64_t),
               "a value takes 8 bytes");

/* ---- on the thread ---- */

static int run_whole(sqlite3_stmt *statement)
{
    int result;
    do
        result = sqlite3_step(statement);
    while (result == SQLITE_ROW);
    sqlite3_reset(statement);
    return result == SQLITE_DONE ? SQLITE_OK : result;
}

static int insert_record(appender *self, const sl_record *record)
{
    const char *at = record->bytes, *end = at + record->length;
    int result = SQLITE_OK;
    for (int place = 1; at < end && result == SQLITE_OK; place++)
        result = bind_next(self->insert, place, &at);
    return result == SQLITE_OK ? run_whole(self->insert) : result;
}

static int on_appender_busy(void *user, int looks)
{
    appender *self = user;
    struct pollfd stop = {.fd = self->base.writer ? sl_sink_stop_fd(&self->base) : -1,
                          .events = POLLIN};
    return looks < BUSY_LOOKS && poll(&stop, 1, BUSY_PAUSE) == 0;
}

static void sweep(appender *self)
{
    int64_t now = appender_now(self);
    self->new_rows = self->new_bytes = 0;
    for (size_t i = 0; i < SL_APPENDER_SWEEPS && self->sweeps[i]; i++) {
        sqlite3_stmt *statement = self->sweeps[i];
        if (sqlite3_bind_parameter_count(statement) > 0)
            sqlite3_bind_int64(statement, 1, now);
        int result = run_whole(statement);
        if (result != SQLITE_OK)
            atomic_store(&self->failure, result);
    }
}

static void appender_write(sl_sink *base, const sl_record *records, size_t count)
{
    appender *self = (appender *)base;
    int result = run_whole(self->begin);
    for (size_t i = 0; i < count && result == SQLITE_OK; i++) {
        result = insert_record(self, &records[i]);
        self->new_bytes += records[i].length;
    }
    if (result == SQLITE_OK)
        result = run_whole(self->commit);
    if (result != SQLITE_OK) {
        atomic_store(&self->failure, result);
        sl_sink_failed(base, count);
        if (!sqlite3_get_autocommit(self->db))
            run_whole(self->rollback);
        return;
    }
    self->new_rows += count;
    if (self->new_rows >= self->rows || self->new_bytes >= self->bytes)
        sweep(self);
}

static void appender_close(sl_sink *base)
{
    appender *self = (appender *)base;
    sqlite3_finalize(self->begin);
    sqlite3_finalize(self->commit);
    sqlite3_finalize(self->rollback);
    sqlite3_finalize(self->insert);
    for (size_t i = 0; i < SL_APPENDER_SWEEPS; i++)
        sqlite3_finalize(self->sweeps[i]);
    sqlite3_close(self->db);
    free(self);
}

static const sl_sink_type appender_type = {.write = appender_write, .close = appender_close};

/* ---- opening ---- */

static int prepare(appender *self, const char *sql, sqlite3_stmt **statement)
{
    return sqlite3_prepare_v2(self->db, sql, -1, statement, NULL);
}

static int prepare_all(appender *self, const sl_appender_plan *plan)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    int result = sqlite3_open_v2(plan->path, &self->db, flags, NULL);
    if (result == SQLITE_OK)
        result = sqlite3_busy_handler(self->db, on_appender_busy, self);
    if (result == SQLITE_OK)
        result = sqlite3_exec(self->db, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
    if (result == SQLITE_OK)
        result = prepare(self, "BEGIN IMMEDIATE", &self->begin);
    if (result == SQLITE_OK)
        result = prepare(self, "COMMIT", &self->commit);
    if (result == SQLITE_OK)
        result = prepare(self, "ROLLBACK", &self->rollback);
    if (result == SQLITE_OK)
        result = prepare(self, plan->insert, &self->insert);
    for (int i = 0; i < SL_APPENDER_SWEEPS && plan->sweeps[i] && result == SQLITE_OK; i++)
        result = prepare(self, plan->sweeps[i], &self->sweeps[i]);
    return result;
}

sl_sink *sl_appender_open(const sl_appender_plan *plan, int *code)
{
    appender *self = calloc(1, sizeof *self);
    *code = SQLITE_NOMEM;
    if (!self)
        return NULL;
    self->base.type = &appender_type;
    self->rows = plan->rows;
    self->bytes = plan->bytes;
    self->new_rows = plan->rows; /* the first rows find old ones gone */
    self->wall = clock_milliseconds(CLOCK_REALTIME);
    self->monotonic = clock_milliseconds(CLOCK_MONOTONIC);
    *code = prepare_all(self, plan);
    if (*code == SQLITE_OK)
        return &self->base;
    appender_close(&self->base);
    return NULL;
}

void sl_appender_discard(sl_sink *sink)
{
    appender_close(sink);
}

int sl_appender_failure(sl_sink *sink)
{
    return atomic_load(&((appender *)sink)->failure);
}
