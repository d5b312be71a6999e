/* SPDX-License-Identifier: MIT */
/*
 * Rows for one table, inserted on the writer's thread; no Lua.
 *
 * A record is the values of a row, one after the other, as sl_appender_add_* encode them. What the
 * thread takes at once is one transaction. An engine without lua.h but for the writer's header.
 */
#ifndef SL_APPENDER_H
#define SL_APPENDER_H

#include "../writer/writer.h"

#include <sqlite3.h>

enum {
    SL_APPENDER_SWEEPS = 4,
};

/** What an appender does; the texts are used by sl_appender_open only. */
typedef struct sl_appender_plan {
    const char *path;
    /** One statement with a parameter for each value of a row. */
    const char *insert;
    /** Statements that take old rows away; ?1, where there is one, is now in milliseconds. */
    const char *sweeps[SL_APPENDER_SWEEPS];
    /** They run after so many rows or bytes, and before the first row. */
    unsigned rows, bytes;
} sl_appender_plan;

/** Opens a file that is there. Returns the sink, or NULL and a code of SQLite's. */
sl_sink *sl_appender_open(const sl_appender_plan *plan, int *code);
/** Gives back one that no writer has. */
void sl_appender_discard(sl_sink *sink);
/** The code of the newest failure; SQLITE_OK where there was none. */
int sl_appender_failure(sl_sink *sink);

/** The values of a row under way; zeroed in the beginning, `bytes` is malloc'ed. */
typedef struct sl_row {
    char *bytes;
    size_t length, size;
} sl_row;

/* Each returns whether there was memory. */
bool sl_row_add_null(sl_row *row);
bool sl_row_add_integer(sl_row *row, int64_t value);
bool sl_row_add_float(sl_row *row, double value);
bool sl_row_add_text(sl_row *row, const char *text, size_t length);

#endif
