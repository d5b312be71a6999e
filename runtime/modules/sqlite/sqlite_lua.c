/* SPDX-License-Identifier: MIT */
/* Lua's view of SQLite: sluice.core.sqlite, databases and their statements. */
#include "sqlite_lua.h"

#include <string.h>

LUAMOD_API int luaopen_sluice_core_sqlite(lua_State *L);

static const char database_type[] = "sluice.sqlite.database";
static const char statement_type[] = "sluice.sqlite.statement";
static const char blob_type[] = "sluice.sqlite.blob";

/** A statement of Lua's; its user values: the database, the names of its columns. */
typedef struct statement_box {
    sqlite_box *database;
    sqlite_node *node;
} statement_box;

enum {
    VALUE_DATABASE = 1,
    VALUE_NAMES = 2,
    /* of fetch: the statement, whether rows are arrays, how many at most; then the rows */
    FETCH_ARRAYS = 2,
    FETCH_MOST = 3,
    FETCH_ROWS = 4,
    FETCH_NAMES = 5,
    FETCH_LOOK = 16, /* rows between two looks at the clock */
};

int sl_sqlite_push_failure(lua_State *L, sqlite_box *box, int code)
{
    sqlite3 *db = box->engine.db;
    bool is_current = db && sqlite3_extended_errcode(db) == code;
    lua_pushnil(L);
    lua_pushstring(L, sl_sqlite_code_name(code));
    lua_pushstring(L, is_current ? sqlite3_errmsg(db) : sqlite3_errstr(code));
    return 3;
}

/* ---- databases ---- */

static void node_finalize(sqlite_box *box, sqlite_node *node)
{
    sqlite3_finalize(node->statement);
    *node->link = node->next;
    if (node->next)
        node->next->link = node->link;
    if (node->owner)
        *node->owner = NULL;
    sl_free(box->core, node);
}

/** After a step on the thread: what could not be done meanwhile. */
static void settle_nodes(sqlite_box *box)
{
    for (sqlite_node *node = box->nodes, *next; node; node = next) {
        next = node->next;
        if (node->to_reset)
            sqlite3_reset(node->statement);
        node->is_started = node->is_started && !node->to_reset;
        node->to_reset = false;
        if (node->to_finalize)
            node_finalize(box, node);
    }
    sl_waitlist_wake(&box->others, SIZE_MAX);
}

static void database_close(sqlite_box *box)
{
    if (!box->is_open)
        return;
    box->is_open = false;
    sl_io_watch(box->core, &box->io, 0);
    sl_close_hook_remove(&box->hook);
    sl_sqlite_stop(&box->engine);
    for (sqlite_node *node = box->nodes, *next; node; node = next) {
        next = node->next;
        node_finalize(box, node);
    }
    sl_sqlite_close(&box->engine);
    sl_waitlist_wake(&box->others, SIZE_MAX);
    sl_task *waiter = box->waiter;
    box->waiter = NULL;
    if (waiter)
        sl_wake(waiter);
}

static void on_database_core_close(sl_close_hook *hook)
{
    database_close((sqlite_box *)(void *)((char *)hook - offsetof(sqlite_box, hook)));
}

static int l_database_close(lua_State *L)
{
    sqlite_box *box = luaL_checkudata(L, 1, database_type);
    bool was_open = box->is_open;
    database_close(box);
    if (was_open) { /* its functions */
        lua_pushnil(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, box);
    }
    return 0;
}

static bool should_stop(void *user, unsigned operations)
{
    return sl_should_stop(((sqlite_box *)user)->core, operations);
}

static sqlite_box *push_database(lua_State *L)
{
    sl_core *core = sl_core_of(L);
    sqlite_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    memset(box, 0, sizeof *box);
    box->core = core;
    box->hook.on_close = on_database_core_close;
    box->engine.should_stop = should_stop;
    box->engine.user = box;
    box->engine.may_start_threads = true;
    luaL_setmetatable(L, database_type);
    return box;
}

/* open(path, read_only) -> database | nil, code, text. One in memory needs the capabilities too:
 * what it takes is the process's, not the instance's. */
static int l_database_open(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    bool read_only = lua_toboolean(L, 2);
    sl_require_capability(L, read_only ? SL_CAN_READ_FILES : SL_CAN_READ_FILES | SL_CAN_WRITE_FILES,
                          read_only ? "reading a database" : "writing a database");
    sqlite_box *box = push_database(L);
    box->engine.may_open_files = sl_has_capability(L, SL_CAN_READ_FILES | SL_CAN_WRITE_FILES);
    lua_createtable(L, 0, 0);
    lua_rawsetp(L, LUA_REGISTRYINDEX, box);
    sl_close_hook_add(box->core, &box->hook);
    box->is_open = true;
    int result = sl_sqlite_open(&box->engine, path, read_only);
    if (result != SQLITE_OK) {
        int count = sl_sqlite_push_failure(L, box, result);
        database_close(box);
        return count;
    }
    return 1;
}

sqlite_box *sl_sqlite_check(lua_State *L, int index)
{
    sqlite_box *box = luaL_checkudata(L, index, database_type);
    luaL_argcheck(L, box->is_open, index, "the database is closed");
    return box;
}

/** The same, while no thread has it. */
static sqlite_box *check_idle_database(lua_State *L)
{
    sqlite_box *box = sl_sqlite_check(L, 1);
    luaL_argcheck(L, !box->engine.is_running, 1, "another task's query is under way");
    return box;
}

static int k_database_idle(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    (void)ctx;
    sqlite_box *box = sl_sqlite_check(L, 1);
    if (box->engine.is_running)
        return sl_waitlist_wait(L, &box->others, "sqlite", 0, k_database_idle);
    return 0;
}

/* database:wait(): until no other task's step is on the thread */
static int l_database_wait(lua_State *L)
{
    return k_database_idle(L, LUA_OK, 0);
}

/* database:changes() -> rows changed since it was opened, by triggers too */
static int l_database_changes(lua_State *L)
{
    lua_pushinteger(L, sqlite3_total_changes64(check_idle_database(L)->engine.db));
    return 1;
}

/* database:is_autocommit() -> whether no transaction is open */
static int l_database_is_autocommit(lua_State *L)
{
    lua_pushboolean(L, sqlite3_get_autocommit(check_idle_database(L)->engine.db));
    return 1;
}

/* database:task() -> the running task, to be compared */
static int l_database_task(lua_State *L)
{
    lua_pushlightuserdata(L, sl_task_current(sl_sqlite_check(L, 1)->core));
    return 1;
}

/* ---- statements ---- */

static sqlite_node *node_new(sqlite_box *box, sqlite3_stmt *statement)
{
    sqlite_node *node = sl_alloc_array(box->core, 1, sizeof *node);
    if (!node)
        return NULL;
    node->statement = statement;
    node->next = box->nodes;
    node->link = &box->nodes;
    if (node->next)
        node->next->link = &node->next;
    box->nodes = node;
    return node;
}

/* database:prepare(sql, from) -> statement, where the next one begins | nil, code, text
 * `false` for a statement where there was nothing but blanks and comments. */
static int l_database_prepare(lua_State *L)
{
    sqlite_box *box = check_idle_database(L);
    size_t length;
    const char *sql = luaL_checklstring(L, 2, &length);
    lua_Integer from = luaL_optinteger(L, 3, 1);
    luaL_argcheck(L, from >= 1 && (size_t)from <= length + 1, 3, "a place in the text");
    luaL_argcheck(L, length <= INT32_MAX - 1, 2, "too long");
    statement_box *object = lua_newuserdatauv(L, sizeof *object, 2);
    *object = (statement_box){.database = box};
    luaL_setmetatable(L, statement_type);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, VALUE_DATABASE);
    sqlite3_stmt *statement = NULL;
    const char *tail = sql;
    int result = sqlite3_prepare_v2(box->engine.db, sql + from - 1, (int)(length - from + 2),
                                    &statement, &tail);
    if (result != SQLITE_OK)
        return sl_sqlite_push_failure(L, box, result);
    if (statement) {
        object->node = node_new(box, statement);
        if (!object->node) {
            sqlite3_finalize(statement);
            return luaL_error(L, "not enough memory");
        }
        object->node->owner = &object->node;
    } else {
        lua_pushboolean(L, 0);
    }
    lua_pushinteger(L, tail - sql + 1);
    return 2;
}

static statement_box *check_statement(lua_State *L)
{
    statement_box *object = luaL_checkudata(L, 1, statement_type);
    luaL_argcheck(L, object->node, 1, "the statement is closed");
    luaL_argcheck(L, !object->database->engine.is_running, 1, "another task's query is under way");
    return object;
}

static int l_statement_close(lua_State *L)
{
    statement_box *object = luaL_checkudata(L, 1, statement_type);
    sqlite_node *node = object->node;
    object->node = NULL;
    if (!node)
        return 0;
    node->owner = NULL;
    node->to_finalize = true;
    if (!object->database->engine.is_running)
        node_finalize(object->database, node);
    return 0;
}

/** Resets it where aggregates in Lua can be ended. */
static void node_reset(lua_State *L, sqlite_box *box, sqlite_node *node)
{
    lua_State *before = box->running;
    box->running = L;
    sqlite3_reset(node->statement);
    box->running = before;
    node->is_started = false;
}

/* statement:reset(): it can be run again; what it holds of the database is let go */
static int l_statement_reset(lua_State *L)
{
    statement_box *object = luaL_checkudata(L, 1, statement_type);
    sqlite_node *node = object->node;
    if (!node)
        return 0;
    if (object->database->engine.is_running)
        node->to_reset = true;
    else
        node_reset(L, object->database, node);
    return 0;
}

/* ---- values ---- */

const char *sl_sqlite_blob(lua_State *L, int index, size_t *size)
{
    if (!lua_getmetatable(L, index))
        return NULL;
    luaL_getmetatable(L, blob_type);
    bool is_blob = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    if (!is_blob)
        return NULL;
    lua_rawgeti(L, index, 1); /* the table holds it on */
    const char *bytes = lua_tolstring(L, -1, size);
    lua_pop(L, 1);
    return bytes;
}

/** Whether the value at the index can be bound; 0 or SQLITE_OK, a code, -1: it is none. */
static int bind_value(lua_State *L, sqlite3_stmt *statement, int place, int index)
{
    size_t size;
    const char *bytes;
    switch (lua_type(L, index)) {
    case LUA_TNIL:
        return sqlite3_bind_null(statement, place);
    case LUA_TLIGHTUSERDATA:
        return lua_touserdata(L, index) ? -1 : sqlite3_bind_null(statement, place);
    case LUA_TBOOLEAN:
        return sqlite3_bind_int64(statement, place, lua_toboolean(L, index));
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            return sqlite3_bind_int64(statement, place, lua_tointeger(L, index));
        return sqlite3_bind_double(statement, place, lua_tonumber(L, index));
    case LUA_TSTRING:
        bytes = lua_tolstring(L, index, &size);
        return sqlite3_bind_text64(statement, place, bytes, size, SQLITE_TRANSIENT, SQLITE_UTF8);
    default:
        bytes = sl_sqlite_blob(L, index, &size);
        return bytes ? sqlite3_bind_blob64(statement, place, bytes, size, SQLITE_TRANSIENT) : -1;
    }
}

/* statement:bind(value...) -> true | nil, code, text | false, place: a value of the wrong type
 * | false, values wanted, values given. Resets it first. */
static int l_statement_bind(lua_State *L)
{
    statement_box *object = check_statement(L);
    sqlite3_stmt *statement = object->node->statement;
    int given = lua_gettop(L) - 1, wanted = sqlite3_bind_parameter_count(statement);
    node_reset(L, object->database, object->node);
    if (given != wanted) {
        lua_pushboolean(L, 0);
        lua_pushinteger(L, wanted);
        lua_pushinteger(L, given);
        return 3;
    }
    for (int place = 1; place <= wanted; place++) {
        int result = bind_value(L, statement, place, place + 1);
        if (result > SQLITE_OK)
            return sl_sqlite_push_failure(L, object->database, result);
        if (result < 0) {
            lua_pushboolean(L, 0);
            lua_pushinteger(L, place);
            return 2;
        }
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* statement:parameters() -> the name of each, with its mark; false for one without */
static int l_statement_parameters(lua_State *L)
{
    sqlite3_stmt *statement = check_statement(L)->node->statement;
    int count = sqlite3_bind_parameter_count(statement);
    lua_createtable(L, count, 0);
    for (int i = 1; i <= count; i++) {
        const char *name = sqlite3_bind_parameter_name(statement, i);
        if (name)
            lua_pushstring(L, name);
        else
            lua_pushboolean(L, 0);
        lua_rawseti(L, -2, i);
    }
    return 1;
}

/* statement:columns() -> the name of each, the declared type of each or false */
static int l_statement_columns(lua_State *L)
{
    sqlite3_stmt *statement = check_statement(L)->node->statement;
    int count = sqlite3_column_count(statement);
    lua_createtable(L, count, 0);
    lua_createtable(L, count, 0);
    for (int i = 0; i < count; i++) {
        lua_pushstring(L, sqlite3_column_name(statement, i));
        lua_rawseti(L, -3, i + 1);
        const char *type = sqlite3_column_decltype(statement, i);
        if (type)
            lua_pushstring(L, type);
        else
            lua_pushboolean(L, 0);
        lua_rawseti(L, -2, i + 1);
    }
    return 2;
}

static int l_statement_is_readonly(lua_State *L)
{
    lua_pushboolean(L, sqlite3_stmt_readonly(check_statement(L)->node->statement));
    return 1;
}

/* ---- rows ---- */

void sl_sqlite_push_value(lua_State *L, sqlite3_value *value)
{
    const char *bytes;
    switch (sqlite3_value_type(value)) {
    case SQLITE_INTEGER:
        lua_pushinteger(L, sqlite3_value_int64(value));
        break;
    case SQLITE_FLOAT:
        lua_pushnumber(L, sqlite3_value_double(value));
        break;
    case SQLITE_NULL:
        lua_pushnil(L);
        break;
    default:
        bytes = sqlite3_value_type(value) == SQLITE_TEXT ? (const char *)sqlite3_value_text(value)
                                                         : sqlite3_value_blob(value);
        lua_pushlstring(L, bytes ? bytes : "", (size_t)sqlite3_value_bytes(value));
    }
}

static void push_column(lua_State *L, sqlite3_stmt *statement, int column)
{
    const char *bytes;
    switch (sqlite3_column_type(statement, column)) {
    case SQLITE_INTEGER:
        lua_pushinteger(L, sqlite3_column_int64(statement, column));
        break;
    case SQLITE_FLOAT:
        lua_pushnumber(L, sqlite3_column_double(statement, column));
        break;
    case SQLITE_NULL:
        lua_pushlightuserdata(L, NULL); /* JSON's null */
        break;
    default:
        bytes = sqlite3_column_type(statement, column) == SQLITE_TEXT
                    ? (const char *)sqlite3_column_text(statement, column)
                    : sqlite3_column_blob(statement, column);
        lua_pushlstring(L, bytes ? bytes : "", (size_t)sqlite3_column_bytes(statement, column));
    }
}

/** The names of the columns at FETCH_NAMES: those of the last time, unless it was compiled anew. */
static void push_names(lua_State *L, sqlite3_stmt *statement)
{
    int count = sqlite3_column_count(statement);
    bool is_new = sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_REPREPARE, 1) > 0;
    lua_settop(L, FETCH_NAMES - 1);
    lua_getiuservalue(L, 1, VALUE_NAMES);
    if (lua_istable(L, FETCH_NAMES) && !is_new)
        return;
    lua_settop(L, FETCH_NAMES - 1);
    lua_createtable(L, count, 0);
    for (int i = 0; i < count; i++) {
        lua_pushstring(L, sqlite3_column_name(statement, i));
        lua_rawseti(L, FETCH_NAMES, i + 1);
    }
    lua_pushvalue(L, FETCH_NAMES);
    lua_setiuservalue(L, 1, VALUE_NAMES);
}

static void push_row_array(lua_State *L, sqlite3_stmt *statement)
{
    int count = sqlite3_column_count(statement);
    lua_createtable(L, count, 0);
    for (int i = 0; i < count; i++) {
        push_column(L, statement, i);
        lua_rawseti(L, -2, i + 1);
    }
}

/* NULL is no field. */
static void push_row_fields(lua_State *L, sqlite3_stmt *statement)
{
    int count = sqlite3_column_count(statement);
    lua_createtable(L, 0, count);
    for (int i = 0; i < count; i++) {
        if (sqlite3_column_type(statement, i) == SQLITE_NULL)
            continue;
        lua_rawgeti(L, FETCH_NAMES, i + 1);
        push_column(L, statement, i);
        lua_rawset(L, -3);
    }
}

static void on_step_ended(sl_io *io, unsigned events)
{
    (void)events;
    sqlite_box *box = (sqlite_box *)(void *)((char *)io - offsetof(sqlite_box, io));
    sl_task *waiter = box->waiter;
    sl_io_watch(box->core, io, 0);
    box->waiter = NULL;
    if (waiter)
        sl_wake(waiter);
}

static void cancel_step(sl_task *task, void *object)
{
    (void)task;
    sqlite_box *box = object;
    sl_io_watch(box->core, &box->io, 0);
    box->waiter = NULL;
    sl_sqlite_stop(&box->engine);
    settle_nodes(box);
}

static int fetch_rows(lua_State *L, statement_box *object, int result);

static int k_step_ended(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    (void)ctx;
    statement_box *object = luaL_checkudata(L, 1, statement_type);
    sqlite_box *box = object->database;
    int result = SQLITE_MISUSE;
    if (box->is_open) {
        result = sl_sqlite_end(&box->engine);
        settle_nodes(box);
    }
    if (object->node)
        return fetch_rows(L, object, result);
    lua_pushnil(L);
    lua_pushliteral(L, "SQLITE_MISUSE");
    lua_pushliteral(L, "it was closed meanwhile");
    return 3;
}

static int step_here(lua_State *L, statement_box *object)
{
    sqlite_box *box = object->database;
    lua_State *before = box->running;
    box->running = L;
    int result = sl_sqlite_step(&box->engine, object->node->statement, !object->node->is_started);
    box->running = before;
    return result;
}

/** Makes the step again, on a thread, and waits for it. */
static int step_on_thread(lua_State *L, statement_box *object)
{
    sqlite_box *box = object->database;
    sl_wait_check(L);
    int failure = sl_sqlite_start(&box->engine, object->node->statement);
    if (failure) {
        box->engine.may_start_threads = false;
        return fetch_rows(L, object, step_here(L, object));
    }
    box->io = (sl_io){.fd = box->engine.event, .on_ready = on_step_ended};
    if (sl_io_watch(box->core, &box->io, SL_READ) != 0) {
        sl_sqlite_stop(&box->engine);
        return luaL_error(L, "not enough memory");
    }
    box->waiter = sl_task_current(box->core);
    return sl_wait_checked(L, "sqlite", cancel_step, box, 0, k_step_ended);
}

/** The rows so far, and whether these are all. Takes the result of the step before. */
static int fetch_rows(lua_State *L, statement_box *object, int result)
{
    sqlite3_stmt *statement = object->node->statement;
    lua_Integer most = lua_tointeger(L, FETCH_MOST), count = 0;
    bool as_arrays = lua_toboolean(L, FETCH_ARRAYS);
    int64_t end = sl_sqlite_now() + SL_SQLITE_SLICE;
    if (result == SQLITE_ROW && !as_arrays)
        push_names(L, statement);
    while (result == SQLITE_ROW) {
        object->node->is_started = true;
        (as_arrays ? push_row_array : push_row_fields)(L, statement);
        lua_rawseti(L, FETCH_ROWS, ++count);
        if (count >= most || (count % FETCH_LOOK == 0 && sl_sqlite_now() > end)) {
            lua_pushvalue(L, FETCH_ROWS);
            lua_pushboolean(L, 0);
            return 2;
        }
        result = step_here(L, object);
    }
    if (result != SQLITE_DONE) {
        if ((result & 0xFF) == SQLITE_INTERRUPT)
            sl_stop_check(L);
        return sl_sqlite_push_failure(L, object->database, result);
    }
    object->node->is_started = false;
    lua_pushvalue(L, FETCH_ROWS);
    lua_pushboolean(L, 1);
    return 2;
}

/*
 * statement:fetch(as_arrays, most) -> rows, whether these were the last | nil, code, text
 * At most so many, and no more than a millisecond takes. Waits where the first one takes longer.
 */
static int l_statement_fetch(lua_State *L)
{
    statement_box *object = check_statement(L);
    luaL_checkinteger(L, FETCH_MOST);
    lua_settop(L, FETCH_MOST);
    lua_createtable(L, 0, 0);
    sqlite_box *box = object->database;
    box->engine.may_start_threads = sl_can_wait_outside(L) && sl_writer_queue(box->core) > 0;
    int result = step_here(L, object);
    if (result == SL_SQLITE_LONG)
        return step_on_thread(L, object);
    return fetch_rows(L, object, result);
}

/* ---- the module ---- */

/* blob(bytes) -> what is bound as a blob */
static int l_sqlite_blob(lua_State *L)
{
    luaL_checkstring(L, 1);
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    luaL_setmetatable(L, blob_type);
    return 1;
}

static const luaL_Reg sqlite_functions[] = {
    {"open", l_database_open},
    {"blob", l_sqlite_blob},
    {"create", sl_sqlite_create},
    {"appender", sl_sqlite_open_appender},
    {NULL, NULL},
};

static const luaL_Reg database_methods[] = {
    {"prepare", l_database_prepare},
    {"changes", l_database_changes},
    {"is_autocommit", l_database_is_autocommit},
    {"wait", l_database_wait},
    {"task", l_database_task},
    {"create_function", sl_sqlite_create_function},
    {"create_aggregate", sl_sqlite_create_aggregate},
    {"close", l_database_close},
    {NULL, NULL},
};

static const luaL_Reg statement_methods[] = {
    {"bind", l_statement_bind},
    {"fetch", l_statement_fetch},
    {"reset", l_statement_reset},
    {"columns", l_statement_columns},
    {"parameters", l_statement_parameters},
    {"is_readonly", l_statement_is_readonly},
    {"close", l_statement_close},
    {NULL, NULL},
};

static const luaL_Reg database_metamethods[] = {
    {"__gc", l_database_close},
    {"__close", l_database_close},
    {NULL, NULL},
};

static const luaL_Reg statement_metamethods[] = {
    {"__gc", l_statement_close},
    {"__close", l_statement_close},
    {NULL, NULL},
};

static void new_type(lua_State *L, const char *name, const luaL_Reg *metamethods,
                     const luaL_Reg *methods)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, metamethods, 0);
    lua_createtable(L, 0, 8);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

int luaopen_sluice_core_sqlite(lua_State *L)
{
    new_type(L, database_type, database_metamethods, database_methods);
    new_type(L, statement_type, statement_metamethods, statement_methods);
    sl_sqlite_add_appenders(L);
    luaL_newmetatable(L, blob_type);
    luaL_newlib(L, sqlite_functions);
    return 1;
}
