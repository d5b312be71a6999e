/* SPDX-License-Identifier: MIT */
/* A SQLite database whose long statements do not hold up their owner; no Lua. */
#include "sqlite.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

int64_t sl_sqlite_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- what SQL may do ---- */

static bool is_in_memory(const char *name)
{
    return name && (*name == '\0' || strcmp(name, ":memory:") == 0);
}

/* Settings of the whole process, which are no business of one database's. */
static bool is_process_wide(const char *pragma)
{
    return strcasecmp(pragma, "temp_store_directory") == 0 ||
           strcasecmp(pragma, "data_store_directory") == 0;
}

static int authorize(void *user, int action, const char *first, const char *second,
                     const char *database, const char *trigger)
{
    (void)second;
    (void)database;
    (void)trigger;
    const sl_sqlite *self = user;
    if (action == SQLITE_ATTACH && !self->may_open_files && !is_in_memory(first))
        return SQLITE_DENY;
    if (action == SQLITE_PRAGMA && is_process_wide(first))
        return SQLITE_DENY;
    return SQLITE_OK;
}

/* ---- whether to go on ---- */

static int on_sqlite_progress(void *user)
{
    sl_sqlite *self = user;
    if (self->is_running)
        return atomic_load(&self->is_stopping);
    if (self->should_stop(self->user, SL_SQLITE_OPERATIONS))
        return 1;
    self->was_long = sl_sqlite_now() > self->slice_end;
    return self->was_long;
}

/* ---- opening and closing ---- */

int sl_sqlite_open(sl_sqlite *self, const char *path, bool read_only)
{
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                (read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    self->event = -1;
    self->slice_end = INT64_MAX;
    int result = sqlite3_open_v2(path, &self->db, flags, NULL);
    if (result != SQLITE_OK)
        return result;
    sqlite3_db_config(self->db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    sqlite3_db_config(self->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, (int *)NULL);
    sqlite3_set_authorizer(self->db, authorize, self);
    sqlite3_progress_handler(self->db, SL_SQLITE_OPERATIONS, on_sqlite_progress, self);
    /* what is sorted does not go into files of its own where none may be written */
    return self->may_open_files
               ? SQLITE_OK
               : sqlite3_exec(self->db, "PRAGMA temp_store = MEMORY", NULL, NULL, NULL);
}

void sl_sqlite_close(sl_sqlite *self)
{
    sl_sqlite_stop(self);
    sqlite3 *db = self->db;
    self->db = NULL;
    if (db)
        sqlite3_close(db);
}

/* ---- steps ---- */

int sl_sqlite_step(sl_sqlite *self, sqlite3_stmt *statement, bool is_first)
{
    bool may_move = is_first && self->may_start_threads && !self->is_bound_to_thread &&
                    sqlite3_stmt_readonly(statement);
    self->was_long = false;
    self->slice_end = may_move ? sl_sqlite_now() + SL_SQLITE_SLICE : INT64_MAX;
    int result = sqlite3_step(statement);
    if (!self->was_long || (result & 0xFF) != SQLITE_INTERRUPT)
        return result;
    sqlite3_reset(statement);
    return SL_SQLITE_LONG;
}

static void *run_step(void *user)
{
    sl_sqlite *self = user;
    self->result = sqlite3_step(self->statement);
    uint64_t one = 1;
    while (write(self->event, &one, sizeof one) < 0 && errno == EINTR)
        continue;
    return NULL;
}

int sl_sqlite_start(sl_sqlite *self, sqlite3_stmt *statement)
{
    self->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->event < 0)
        return errno;
    atomic_store(&self->is_stopping, false);
    self->statement = statement;
    self->is_running = true;
    int failure = pthread_create(&self->thread, NULL, run_step, self);
    if (failure) {
        self->is_running = false;
        close(self->event);
        self->event = -1;
    }
    return failure;
}

int sl_sqlite_end(sl_sqlite *self)
{
    pthread_join(self->thread, NULL);
    self->is_running = false;
    close(self->event);
    self->event = -1;
    return self->result;
}

void sl_sqlite_stop(sl_sqlite *self)
{
    if (!self->is_running)
        return;
    atomic_store(&self->is_stopping, true);
    sl_sqlite_end(self);
}

/* ---- names of codes ---- */

typedef struct sqlite_code {
    int code;
    const char *name;
} sqlite_code;

#define CODE(name)                                                                                 \
    {                                                                                              \
        SQLITE_##name, "SQLITE_" #name                                                             \
    }

static const sqlite_code sqlite_codes[] = {
    CODE(BUSY_SNAPSHOT),
    CODE(CONSTRAINT_CHECK),
    CODE(CONSTRAINT_FOREIGNKEY),
    CODE(CONSTRAINT_NOTNULL),
    CODE(CONSTRAINT_PRIMARYKEY),
    CODE(CONSTRAINT_TRIGGER),
    CODE(CONSTRAINT_UNIQUE),
    CODE(CONSTRAINT_DATATYPE),
    CODE(ERROR),
    CODE(INTERNAL),
    CODE(PERM),
    CODE(ABORT),
    CODE(BUSY),
    CODE(LOCKED),
    CODE(NOMEM),
    CODE(READONLY),
    CODE(INTERRUPT),
    CODE(IOERR),
    CODE(CORRUPT),
    CODE(FULL),
    CODE(CANTOPEN),
    CODE(PROTOCOL),
    CODE(SCHEMA),
    CODE(TOOBIG),
    CODE(CONSTRAINT),
    CODE(MISMATCH),
    CODE(MISUSE),
    CODE(AUTH),
    CODE(RANGE),
    CODE(NOTADB),
};

#undef CODE

static const char *find_code(int code)
{
    for (size_t i = 0; i < sizeof sqlite_codes / sizeof *sqlite_codes; i++)
        if (sqlite_codes[i].code == code)
            return sqlite_codes[i].name;
    return NULL;
}

const char *sl_sqlite_code_name(int code)
{
    const char *name = find_code(code);
    if (!name)
        name = find_code(code & 0xFF);
    return name ? name : "SQLITE_UNKNOWN";
}
