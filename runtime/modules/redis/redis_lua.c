/* SPDX-License-Identifier: MIT */
/* sluice.core.redis: connections to Redis, their commands and replies as Lua values. */
#include "redis.h"

#include <lua.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

LUAMOD_API int luaopen_sluice_core_redis(lua_State *L);

static const char redis_server_type[] = "sluice.redis.server";
static const char redis_connection_type[] = "sluice.redis.connection";

/** Where to connect; `server` is NULL when closed. */
typedef struct lua_redis_server {
    sl_redis_server *server;
    sl_close_hook hook;
} lua_redis_server;

/** One connection, NULL once its core is closed. Its user value makes an err of an error reply. */
typedef struct lua_redis {
    sl_redis *connection;
    sl_close_hook hook;
} lua_redis;

enum {
    ARG_CONNECTION = 1,
    ARG_TIME = 2,
    ARG_WORDS = 3,
    /* Longer than any number. */
    NUMBER_SIZE = 48,
    /* Room made for an array at once; a longer one grows. */
    MOST_ROOM = 1 << 20,
    MOST_COMMANDS = 1 << 20,
};

/* ---- words ---- */

/** Numbers as Redis reads them, to the last bit. */
static const char *word_at(lua_State *L, int index, char number[NUMBER_SIZE], size_t *length)
{
    if (lua_type(L, index) == LUA_TSTRING)
        return lua_tolstring(L, index, length);
    int size = lua_isinteger(L, index)
                   ? snprintf(number, NUMBER_SIZE, LUA_INTEGER_FMT, lua_tointeger(L, index))
                   : snprintf(number, NUMBER_SIZE, "%.17g", lua_tonumber(L, index));
    *length = (size_t)size;
    return number;
}

static bool is_word(lua_State *L, int index)
{
    int type = lua_type(L, index);
    return type == LUA_TSTRING || type == LUA_TNUMBER;
}

/** Adds the words from `first` to the top as one command. They have been checked. */
static void add_words(lua_State *L, sl_core *core, sl_redis_bytes *bytes, int first)
{
    char number[NUMBER_SIZE];
    size_t length;
    int top = lua_gettop(L);
    sl_redis_command(core, bytes, (size_t)top - (size_t)first + 1);
    for (int index = first; index <= top; index++) {
        const char *word = word_at(L, index, number, &length);
        sl_redis_argument(core, bytes, word, length);
    }
}

/** Checks the array of arrays of words at `index`; how many there are. */
static unsigned check_commands(lua_State *L, int index)
{
    luaL_checktype(L, index, LUA_TTABLE);
    lua_Unsigned count = lua_rawlen(L, index);
    luaL_argcheck(L, count <= MOST_COMMANDS, index, "too many commands");
    for (lua_Unsigned i = 1; i <= count; i++) {
        luaL_argcheck(L, lua_rawgeti(L, index, (lua_Integer)i) == LUA_TTABLE, index,
                      "a command is an array of words");
        lua_Unsigned words = lua_rawlen(L, -1);
        luaL_argcheck(L, words > 0, index, "a command has a name");
        for (lua_Unsigned k = 1; k <= words; k++) {
            lua_rawgeti(L, -1, (lua_Integer)k);
            luaL_argcheck(L, is_word(L, -1), index, "the words are strings and numbers");
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    return (unsigned)count;
}

static void add_commands(lua_State *L, sl_core *core, sl_redis_bytes *bytes, int index)
{
    char number[NUMBER_SIZE];
    size_t length;
    lua_Unsigned count = lua_rawlen(L, index);
    for (lua_Unsigned i = 1; i <= count; i++) {
        lua_rawgeti(L, index, (lua_Integer)i);
        lua_Unsigned words = lua_rawlen(L, -1);
        sl_redis_command(core, bytes, (size_t)words);
        for (lua_Unsigned k = 1; k <= words; k++) {
            lua_rawgeti(L, -1, (lua_Integer)k);
            const char *word = word_at(L, -1, number, &length);
            sl_redis_argument(core, bytes, word, length);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
}

/* ---- replies ---- */

/** An array that is being filled: how many elements are to come, and the next one's place. */
typedef struct open_array {
    long long left;
    lua_Integer next;
} open_array;

/** Pushes what is no array. The connection is at 1. */
static void push_scalar(lua_State *L, const sl_redis_record *record, bool nested)
{
    switch (record->type) {
    case '$':
    case '+':
        lua_pushlstring(L, record->bytes, (size_t)record->number);
        break;
    case ':':
        lua_pushinteger(L, record->number);
        break;
    case '-':
        lua_getiuservalue(L, ARG_CONNECTION, 1);
        lua_pushlstring(L, record->bytes, (size_t)record->number);
        lua_call(L, 1, 1);
        break;
    default: /* a hole would make the array's length a guess */
        if (nested)
            lua_pushboolean(L, false);
        else
            lua_pushnil(L);
        break;
    }
}

/** Pushes the next value of the reply, an array with all that is in it. */
static void push_value(lua_State *L, const sl_redis_bytes *reply, size_t *position, bool nested)
{
    open_array arrays[SL_REDIS_MAX_DEPTH + 1];
    int depth = 0;
    luaL_checkstack(L, SL_REDIS_MAX_DEPTH + 8, NULL);
    do {
        sl_redis_record record = sl_redis_record_read(reply, position);
        if (record.type == '*' && depth <= SL_REDIS_MAX_DEPTH) {
            lua_createtable(L, record.number < MOST_ROOM ? (int)record.number : MOST_ROOM, 0);
            arrays[depth++] = (open_array){.left = record.number, .next = 1};
        } else {
            push_scalar(L, &record, nested || depth > 0);
            if (depth > 0) {
                lua_rawseti(L, -2, arrays[depth - 1].next++);
                arrays[depth - 1].left--;
            }
        }
        while (depth > 0 && arrays[depth - 1].left == 0) {
            depth--;
            if (depth > 0) {
                lua_rawseti(L, -2, arrays[depth - 1].next++);
                arrays[depth - 1].left--;
            }
        }
    } while (depth > 0);
}

/** The one reply: a value, or nil and an err. */
static int push_reply(lua_State *L, const sl_redis_bytes *reply)
{
    size_t position = 0;
    if (reply->data[0] == '-')
        lua_pushnil(L);
    push_value(L, reply, &position, false);
    return reply->data[0] == '-' ? 2 : 1;
}

/** The replies of several commands as an array. */
static int push_replies(lua_State *L, const sl_redis_bytes *reply)
{
    size_t position = 0;
    lua_newtable(L);
    for (lua_Integer i = 1; position < reply->size; i++) {
        push_value(L, reply, &position, true);
        lua_rawseti(L, -2, i);
    }
    return 1;
}

/** nil, kind, text, whether the server may have done it. */
static int push_request_failure(lua_State *L, const sl_redis_request *request)
{
    const char *text = NULL;
    const char *kind = "TimeoutError";
    if (request->outcome == SL_REDIS_FAILED)
        kind = sl_redis_failure(request->connection, &text);
    lua_pushnil(L);
    lua_pushstring(L, kind);
    lua_pushstring(L, text);
    lua_pushboolean(L, request->sent);
    return 4;
}

/* ---- commands ---- */

static lua_redis *check_connection(lua_State *L)
{
    return luaL_checkudata(L, ARG_CONNECTION, redis_connection_type);
}

static void on_redis_end(sl_redis_request *request)
{
    sl_wake(request->user);
}

static void cancel_redis(sl_task *task, void *object)
{
    (void)task;
    sl_redis_request_release(object);
}

static int redis_replied(lua_State *L, sl_redis_request *request, bool several)
{
    int results;
    if (request->outcome != SL_REDIS_ANSWERED)
        results = push_request_failure(L, request);
    else
        results = several ? push_replies(L, &request->reply) : push_reply(L, &request->reply);
    sl_redis_request_release(request);
    return results;
}

static int k_redis_command(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    return redis_replied(L, (sl_redis_request *)ctx, false);
}

static int k_redis_batch(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    return redis_replied(L, (sl_redis_request *)ctx, true);
}

static int64_t check_time(lua_State *L, int index)
{
    lua_Number seconds = luaL_optnumber(L, index, 0);
    if (seconds <= 0 || seconds > 3.2e10)
        return 0;
    int64_t time = (int64_t)(seconds * 1e6);
    return time > 0 ? time : 1;
}

/** nil and why nothing was tried. */
static int push_untried(lua_State *L, const char *kind)
{
    lua_pushnil(L);
    lua_pushstring(L, kind);
    return 2;
}

/** Sends the request that the words have been added to, and waits. */
static int redis_submit(lua_State *L, sl_redis_request *request, int64_t time, lua_KFunction k)
{
    sl_core *core = sl_core_of(L);
    if (sl_redis_submit(request, time) < 0)
        return luaL_error(L, "not enough memory");
    request->user = sl_task_current(core);
    request->on_end = on_redis_end;
    return sl_wait_checked(L, "redis", cancel_redis, request, (lua_KContext)request, k);
}

static sl_redis_request *new_request(lua_State *L, sl_redis *connection, unsigned replies)
{
    sl_redis_request *request = sl_redis_request_new(connection, replies);
    if (!request)
        luaL_error(L, "not enough memory");
    return request;
}

/** Whether the words from `first` to the top can be sent. */
static bool are_words(lua_State *L, int first)
{
    int top = lua_gettop(L);
    luaL_argcheck(L, top >= first, first, "a command has a name");
    for (int index = first; index <= top; index++)
        if (!is_word(L, index))
            return false;
    return true;
}

/*
 * connection:command(seconds, word...) -> value | nil, err | nil, kind, text, sent
 *
 * Waits for the reply, at most so long (0: no limit). `err` is of an error reply; `kind` of a
 * failure; "Closed" where the connection takes no more, and "BadWord" where a word is neither a
 * string nor a number: nothing was tried then. Inside an array null is false.
 */
static int l_redis_command(lua_State *L)
{
    const lua_redis *self = check_connection(L);
    int64_t time = check_time(L, ARG_TIME);
    if (!are_words(L, ARG_WORDS))
        return push_untried(L, "BadWord");
    sl_require_real_time(L, "redis");
    sl_wait_check(L);
    if (!self->connection || !sl_redis_is_usable(self->connection))
        return push_untried(L, "Closed");
    sl_redis_request *request = new_request(L, self->connection, 1);
    add_words(L, sl_core_of(L), sl_redis_output(self->connection), ARG_WORDS);
    return redis_submit(L, request, time, k_redis_command);
}

/* connection:batch(seconds, commands) -> array | nil, kind, text, sent: several commands that go
 * together, nothing of others between them; a reply that is an error stands as err in the array. */
static int l_redis_batch(lua_State *L)
{
    const lua_redis *self = check_connection(L);
    int64_t time = check_time(L, ARG_TIME);
    lua_settop(L, ARG_WORDS);
    unsigned count = check_commands(L, ARG_WORDS);
    luaL_argcheck(L, count > 0, ARG_WORDS, "at least one command");
    sl_require_real_time(L, "redis");
    sl_wait_check(L);
    if (!self->connection || !sl_redis_is_usable(self->connection))
        return push_untried(L, "Closed");
    sl_redis_request *request = new_request(L, self->connection, count);
    add_commands(L, sl_core_of(L), sl_redis_output(self->connection), ARG_WORDS);
    return redis_submit(L, request, time, k_redis_batch);
}

/* connection:post(commands) -> whether they will be sent: does not wait, and nobody sees the
 * replies. What has not left when the connection fails is lost. */
static int l_redis_post(lua_State *L)
{
    const lua_redis *self = check_connection(L);
    lua_settop(L, 2);
    unsigned count = check_commands(L, 2);
    bool usable = self->connection && sl_redis_is_usable(self->connection);
    if (usable && count > 0) {
        sl_redis_request *request = new_request(L, self->connection, count);
        add_commands(L, sl_core_of(L), sl_redis_output(self->connection), 2);
        if (sl_redis_submit(request, 0) < 0)
            return luaL_error(L, "not enough memory");
        sl_redis_request_forget(request);
    }
    lua_pushboolean(L, usable);
    return 1;
}

/* ---- a connection ---- */

/* connection:facts() -> state, in_flight, answered, kind, text; the last two of one that failed */
static int l_redis_facts(lua_State *L)
{
    const lua_redis *self = check_connection(L);
    const char *text = NULL;
    if (!self->connection) {
        lua_pushliteral(L, "closed");
        return 1;
    }
    const char *kind = sl_redis_failure(self->connection, &text);
    lua_pushstring(L, sl_redis_state_name(self->connection));
    lua_pushinteger(L, (lua_Integer)sl_redis_in_flight(self->connection));
    lua_pushboolean(L, sl_redis_has_answered(self->connection));
    lua_pushstring(L, kind);
    lua_pushstring(L, kind ? text : NULL);
    return 5;
}

/* connection:retire(): takes no more commands, and closes when the last one is answered */
static int l_redis_retire(lua_State *L)
{
    const lua_redis *self = check_connection(L);
    if (self->connection)
        sl_redis_retire(self->connection);
    return 0;
}

static void on_redis_core_close(sl_close_hook *hook)
{
    lua_redis *self = (lua_redis *)(void *)((char *)hook - offsetof(lua_redis, hook));
    sl_close_hook_remove(hook);
    sl_redis_delete(self->connection);
    self->connection = NULL;
}

/* connection:close(): those in flight fail; idempotent */
static int l_redis_close(lua_State *L)
{
    const lua_redis *self = check_connection(L);
    if (self->connection)
        sl_redis_close(self->connection, "the client was closed");
    return 0;
}

/** Nobody can wait for it any more. */
static int l_redis_gc(lua_State *L)
{
    lua_redis *self = check_connection(L);
    if (self->connection)
        on_redis_core_close(&self->hook);
    return 0;
}

static int l_redis_tostring(lua_State *L)
{
    const lua_redis *self = check_connection(L);
    lua_pushfstring(L, "%s: %s", redis_connection_type,
                    self->connection ? sl_redis_state_name(self->connection) : "closed");
    return 1;
}

/* ---- a server ---- */

static lua_redis_server *check_server_handle(lua_State *L)
{
    return luaL_checkudata(L, 1, redis_server_type);
}

static void on_server_hook(sl_close_hook *hook)
{
    lua_redis_server *self =
        (lua_redis_server *)(void *)((char *)hook - offsetof(lua_redis_server, hook));
    sl_close_hook_remove(hook);
    sl_redis_server_release(self->server);
    self->server = NULL;
}

static int l_redis_server_gc(lua_State *L)
{
    lua_redis_server *self = check_server_handle(L);
    if (self->server)
        on_server_hook(&self->hook);
    return 0;
}

static const char *text_field(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    const char *text = luaL_optstring(L, -1, NULL);
    lua_pop(L, 1); /* the table keeps it */
    return text;
}

static bool flag_field(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    bool flag = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return flag;
}

static lua_Number number_field(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    lua_Number number = luaL_checknumber(L, -1);
    lua_pop(L, 1);
    return number;
}

static void check_server_options(lua_State *L, sl_redis_options *options)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    *options = (sl_redis_options){
        .host = text_field(L, "host"),
        .path = text_field(L, "path"),
        .port = (unsigned)number_field(L, "port"),
        .tls = flag_field(L, "tls"),
        .verify = flag_field(L, "verify"),
        .ca_file = text_field(L, "ca_file"),
        .certificate = text_field(L, "cert"),
        .key = text_field(L, "key"),
        .server_name = text_field(L, "server_name"),
        .connect_time = (int64_t)(number_field(L, "connect_time") * 1e6),
        .max_reply = (size_t)number_field(L, "max_reply"),
    };
    luaL_argcheck(L, options->host || options->path, 1, "a host or a path is needed");
    sl_require_capability(L, SL_CAN_CONNECT, "redis.connect");
    const char *host = options->host;
    if (options->path)
        host = lua_pushfstring(L, "unix:%s", options->path);
    const char *refusal =
        sl_refuse_connection(sl_core_of(L), host, options->path ? 0 : options->port);
    if (refusal)
        luaL_error(L, "redis.connect: %s", refusal);
    lua_settop(L, 1);
    if (options->ca_file || options->certificate || options->key)
        sl_require_capability(L, SL_CAN_READ_FILES, "redis.connect: tls");
}

/** The commands of the field "greeting". */
static void greet(lua_State *L, sl_redis_server *server)
{
    sl_core *core = sl_core_of(L);
    sl_redis_bytes greeting = {0};
    lua_getfield(L, 1, "greeting");
    int index = lua_gettop(L);
    unsigned count = check_commands(L, index);
    if (count == 0)
        return;
    add_commands(L, core, &greeting, index);
    if (!greeting.data)
        luaL_error(L, "not enough memory");
    sl_redis_server_greet(server, &greeting, count);
}

/*
 * server{ host=, port= | path=, tls=, verify=, ca_file=, cert=, key=, server_name=, connect_time=,
 * max_reply=, greeting= } -> server | nil, kind, text. Seconds and bytes; the greeting is an array
 * of commands that every connection begins with. Does not connect.
 */
static int l_redis_server(lua_State *L)
{
    sl_redis_options options;
    char error[512];
    const char *kind;
    check_server_options(L, &options);
    lua_redis_server *self = lua_newuserdatauv(L, sizeof *self, 0);
    memset(self, 0, sizeof *self);
    self->hook.on_close = on_server_hook;
    luaL_setmetatable(L, redis_server_type);
    self->server = sl_redis_server_new(sl_core_of(L), &options, &kind, error, sizeof error);
    if (!self->server) {
        lua_pushnil(L);
        lua_pushstring(L, kind);
        lua_pushstring(L, error);
        return 3;
    }
    sl_close_hook_add(sl_core_of(L), &self->hook);
    greet(L, self->server);
    lua_settop(L, 2);
    return 1;
}

/* server:open(make_err) -> connection, which connects by itself; make_err(text) makes an err of an
 * error reply, and cannot wait */
static int l_redis_open(lua_State *L)
{
    lua_redis_server *server = check_server_handle(L);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    sl_require_capability(L, SL_CAN_CONNECT, "redis");
    sl_require_real_time(L, "redis");
    luaL_argcheck(L, server->server, 1, "closed");
    lua_redis *self = lua_newuserdatauv(L, sizeof *self, 1);
    memset(self, 0, sizeof *self);
    self->hook.on_close = on_redis_core_close;
    luaL_setmetatable(L, redis_connection_type);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, 1);
    self->connection = sl_redis_open(server->server);
    if (!self->connection)
        return luaL_error(L, "not enough memory");
    sl_close_hook_add(sl_core_of(L), &self->hook);
    return 1;
}

/* ---- the module ---- */

static const luaL_Reg redis_server_methods[] = {
    {"open", l_redis_open},
    {NULL, NULL},
};

static const luaL_Reg redis_server_metamethods[] = {
    {"__gc", l_redis_server_gc},
    {NULL, NULL},
};

static const luaL_Reg redis_methods[] = {
    {"command", l_redis_command},
    {"batch", l_redis_batch},
    {"post", l_redis_post},
    {"facts", l_redis_facts},
    {"retire", l_redis_retire},
    {"close", l_redis_close},
    {NULL, NULL},
};

static const luaL_Reg redis_metamethods[] = {
    {"__gc", l_redis_gc},
    {"__close", l_redis_close},
    {"__tostring", l_redis_tostring},
    {NULL, NULL},
};

static const luaL_Reg redis_functions[] = {
    {"server", l_redis_server},
    {NULL, NULL},
};

static void redis_type(lua_State *L, const char *name, const luaL_Reg *methods,
                       const luaL_Reg *metamethods)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, metamethods, 0);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

int luaopen_sluice_core_redis(lua_State *L)
{
    redis_type(L, redis_server_type, redis_server_methods, redis_server_metamethods);
    redis_type(L, redis_connection_type, redis_methods, redis_metamethods);
    luaL_newlib(L, redis_functions);
    return 1;
}
