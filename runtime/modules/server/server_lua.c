/* SPDX-License-Identifier: MIT */
/* Lua's view of the server: sluice.core.server. A listener gives exchanges to tasks. */
#include "../socket/address.h"
#include "server_lua.h"
#include "tls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

LUAMOD_API int luaopen_sluice_core_server(lua_State *L);

static const char server_type[] = "sluice.server";

enum {
    SERVER_BACKLOG = 4096,
};

/** A listening server, as Lua holds it. */
typedef struct server_handle {
    sl_server server;
    sl_core *core;
    /** NULL for plain sockets. */
    sl_tls *tls;
    sl_waitlist acceptors, drainers, loggers;
    sl_close_hook hook;
    bool open, stopped;
} server_handle;

/* ---- events: store and wake ---- */

static server_handle *handle_of_server(sl_server *server)
{
    return (server_handle *)(void *)((char *)server - offsetof(server_handle, server));
}

static void on_server_request(sl_server *server)
{
    sl_waitlist_wake(&handle_of_server(server)->acceptors, 1);
}

static void on_server_drained(sl_server *server)
{
    sl_waitlist_wake(&handle_of_server(server)->drainers, SIZE_MAX);
}

static void on_server_refused(sl_server *server)
{
    sl_waitlist_wake(&handle_of_server(server)->loggers, 1);
}

static const sl_server_events server_events = {
    .on_request = on_server_request,
    .on_drained = on_server_drained,
    .on_body = sl_exchange_handle_on_body,
    .on_room = sl_exchange_handle_on_room,
    .on_gone = sl_exchange_handle_on_gone,
    .on_refused = on_server_refused,
};

/* What happens while the core closes is told to nobody: no task will run again. */

static void on_server_nothing(sl_server *server)
{
    (void)server;
}

static void on_exchange_nothing(sl_exchange *x)
{
    (void)x;
}

static const sl_server_events server_silence = {
    .on_request = on_server_nothing,
    .on_drained = on_server_nothing,
    .on_body = on_exchange_nothing,
    .on_room = on_exchange_nothing,
    .on_gone = on_exchange_nothing,
    .on_refused = on_server_nothing,
};

/* ---- the listener ---- */

static void server_handle_stop(server_handle *handle)
{
    if (!handle->open)
        return;
    handle->stopped = true;
    sl_server_stop(&handle->server);
    sl_waitlist_wake(&handle->acceptors, SIZE_MAX);
}

/** The one way out: close, __close, __gc. */
static void server_handle_close(server_handle *handle)
{
    if (!handle->open)
        return;
    server_handle_stop(handle);
    handle->open = false;
    sl_close_hook_remove(&handle->hook);
    sl_server_close(&handle->server);
    sl_waitlist_wake(&handle->drainers, SIZE_MAX);
    sl_waitlist_wake(&handle->loggers, SIZE_MAX);
}

/** Also the notes that nobody took; they outlive a close, so that they can still be logged. */
static void server_handle_fini(server_handle *handle)
{
    server_handle_close(handle);
    sl_tls_delete(handle->tls);
    handle->tls = NULL;
    for (sl_refusal *note; (note = sl_server_take_refusal(&handle->server));)
        sl_free(handle->core, note);
}

static void on_server_core_close(sl_close_hook *hook)
{
    server_handle *handle = (server_handle *)(void *)((char *)hook - offsetof(server_handle, hook));
    handle->acceptors = handle->drainers = handle->loggers = (sl_waitlist){0};
    handle->server.events = &server_silence;
    server_handle_fini(handle);
}

static int64_t time_option(lua_State *L, const char *name, double fallback)
{
    lua_getfield(L, 1, name);
    double seconds = luaL_optnumber(L, -1, fallback);
    luaL_argcheck(L, seconds > 0 && seconds < 1e9, 1, name);
    lua_pop(L, 1);
    return (int64_t)(seconds * 1e6);
}

static lua_Integer integer_option(lua_State *L, const char *name, lua_Integer fallback,
                                  lua_Integer max)
{
    lua_getfield(L, 1, name);
    lua_Integer value = luaL_optinteger(L, -1, fallback);
    luaL_argcheck(L, value >= 0 && value <= max, 1, name);
    lua_pop(L, 1);
    return value;
}

/** What listen was given; the texts are of its table. */
typedef struct listen_options {
    const char *text, *certificate, *key;
    sl_address address;
    sl_server_limits limits;
    uint32_t id_prefix;
    bool refusals;
} listen_options;

static void check_limits(lua_State *L, sl_server_limits *limits)
{
    *limits = (sl_server_limits){
        .max_body = (uint64_t)integer_option(L, "max_body", 8 << 20, (lua_Integer)1 << 50),
        .max_connections = (uint32_t)integer_option(L, "max_connections", 16384, 1 << 24),
        .body_rate = (uint32_t)integer_option(L, "body_rate", 128, 1 << 30),
        .head_time = time_option(L, "head_time", 10),
        .body_time = time_option(L, "body_time", 30),
        .idle_time = time_option(L, "idle_time", 60),
        .stall_time = time_option(L, "stall_time", 30),
        .linger_time = time_option(L, "linger_time", 2),
    };
}

static const char *text_option(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    const char *text = luaL_optstring(L, -1, NULL);
    lua_pop(L, 1);
    return text;
}

/** Everything but the address, which is the only thing that a caller may get wrong. */
static void check_listen_options(lua_State *L, listen_options *options)
{
    check_limits(L, &options->limits);
    options->id_prefix = (uint32_t)integer_option(L, "id_prefix", 0, UINT32_MAX);
    options->certificate = text_option(L, "certificate");
    options->key = text_option(L, "key");
    luaL_argcheck(L, !options->certificate == !options->key, 1, "a certificate needs its key");
    lua_getfield(L, 1, "refusals");
    options->refusals = lua_toboolean(L, -1);
    lua_pop(L, 1);
    sl_require_capability(L, SL_CAN_LISTEN, "server.listen");
    if (options->certificate)
        sl_require_capability(L, SL_CAN_READ_FILES, "server.listen: tls");
    sl_require_real_time(L, "server.listen");
}

static int push_listen_failure(lua_State *L, const char *message, const char *kind)
{
    lua_pushnil(L);
    lua_pushstring(L, message);
    lua_pushstring(L, kind);
    return 3;
}

/** Pushes a listener, or nil, message, kind. */
static int server_handle_open(lua_State *L, server_handle *handle, const listen_options *options)
{
    char error[512];
    if (options->certificate) {
        handle->tls =
            sl_tls_new(handle->core, options->certificate, options->key, error, sizeof error);
        if (!handle->tls)
            return push_listen_failure(L, error, "TLSError");
    }
    int fd = sl_address_listen(&options->address, SERVER_BACKLOG);
    if (fd < 0) {
        snprintf(error, sizeof error, "listen on %s: %s", options->text, strerror(errno));
        server_handle_fini(handle);
        return push_listen_failure(L, error, "ListenError");
    }
    if (sl_server_open(&handle->server, handle->core, fd, &options->limits, &server_events) < 0) {
        server_handle_fini(handle);
        return luaL_error(L, "not enough memory");
    }
    handle->open = true;
    handle->server.keeps_refusals = options->refusals;
    handle->server.id_prefix = options->id_prefix;
    if (handle->tls)
        sl_tls_use(&handle->server, handle->tls);
    sl_close_hook_add(handle->core, &handle->hook);
    return 1;
}

/*
 * listen{ address=, max_body=, max_connections=, body_rate=, head_time=, body_time=, idle_time=,
 * stall_time=, linger_time=, certificate=, key=, refusals=, id_prefix= } -> listener
 * | nil, message, kind; a malformed address has no kind. Bytes, bytes a second, seconds; the two
 * files make it speak TLS; refusals: whether to keep them; id_prefix: a random 32-bit number.
 */
static int l_server_listen(lua_State *L)
{
    listen_options options = {0};
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "address");
    options.text = luaL_checkstring(L, -1);
    const char *wrong = sl_address_parse(&options.address, options.text);
    if (wrong)
        return push_listen_failure(L, wrong, NULL);
    check_listen_options(L, &options);
    server_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    memset(handle, 0, sizeof *handle);
    handle->core = sl_core_of(L);
    handle->hook.on_close = on_server_core_close;
    luaL_setmetatable(L, server_type);
    return server_handle_open(L, handle, &options);
}

static server_handle *check_server(lua_State *L)
{
    return sl_server_check(L, server_type);
}

static int k_server_accept(lua_State *L, int status, lua_KContext ctx)
{
    (void)status, (void)ctx;
    server_handle *handle = lua_touserdata(L, 1);
    lua_settop(L, 1);
    if (handle->stopped || !handle->open)
        return 0;
    if (!handle->server.first)
        return sl_waitlist_wait(L, &handle->acceptors, "server:accept", 0, k_server_accept);
    sl_exchange_handle *taken = sl_exchange_handle_new(L, handle->core);
    sl_exchange *x = sl_server_take(&handle->server);
    if (!x)
        return k_server_accept(L, LUA_OK, 0);
    sl_exchange_handle_open(taken, x);
    return 1;
}

/* listener:accept() -> exchange, whose head is complete; nil once stopped; waits */
static int l_server_accept(lua_State *L)
{
    check_server(L);
    return k_server_accept(L, LUA_OK, 0);
}

/* listener:address() -> text | nil once stopped */
static int l_server_address(lua_State *L)
{
    server_handle *handle = check_server(L);
    sl_address address = {.length = sizeof address.storage};
    char text[SL_ADDRESS_TEXT];
    if (!handle->open || handle->server.io.fd < 0)
        return 0;
    getsockname(handle->server.io.fd, (struct sockaddr *)&address.storage, &address.length);
    sl_address_format(&address, text);
    lua_pushstring(L, text);
    return 1;
}

/* listener:counts() -> connections, those of them at work */
static int l_server_counts(lua_State *L)
{
    server_handle *handle = check_server(L);
    lua_pushinteger(L, handle->open ? handle->server.count : 0);
    lua_pushinteger(L, handle->open ? handle->server.working : 0);
    return 2;
}

/* listener:stop(): accepts no more, closes idle connections; answers under way go on */
static int l_server_stop(lua_State *L)
{
    server_handle_stop(check_server(L));
    return 0;
}

static int k_server_drained(lua_State *L, int status, lua_KContext ctx)
{
    (void)status, (void)ctx;
    server_handle *handle = lua_touserdata(L, 1);
    bool drained = !handle->open || (handle->stopped && handle->server.working == 0);
    if (drained)
        return 0;
    return sl_waitlist_wait(L, &handle->drainers, "server:drained", 0, k_server_drained);
}

/* listener:drained(): waits until it is stopped and has answered all */
static int l_server_drained(lua_State *L)
{
    check_server(L);
    return k_server_drained(L, LUA_OK, 0);
}

static void push_refusal(lua_State *L, const sl_refusal *note)
{
    lua_createtable(L, 0, 8);
    lua_pushinteger(L, note->status);
    lua_setfield(L, -2, "status");
    lua_pushinteger(L, (lua_Integer)note->bytes);
    lua_setfield(L, -2, "bytes");
    lua_pushnumber(L, (lua_Number)note->duration / 1e6);
    lua_setfield(L, -2, "seconds");
    if (note->id[0]) {
        lua_pushstring(L, note->id);
        lua_setfield(L, -2, "id");
    }
    if (note->remote[0]) {
        lua_pushstring(L, note->remote);
        lua_setfield(L, -2, "remote");
    }
    if (note->method_length) {
        lua_pushlstring(L, note->text, note->method_length);
        lua_setfield(L, -2, "method");
    }
    if (note->path_length) {
        lua_pushlstring(L, note->text + note->method_length, note->path_length);
        lua_setfield(L, -2, "path");
    }
}

static int k_server_refused(lua_State *L, int status, lua_KContext ctx)
{
    (void)status, (void)ctx;
    server_handle *handle = lua_touserdata(L, 1);
    lua_settop(L, 1);
    const sl_refusal *note = handle->server.first_refusal;
    if (!note && handle->open)
        return sl_waitlist_wait(L, &handle->loggers, "server:refused", 0, k_server_refused);
    if (!note)
        return 0;
    push_refusal(L, note);
    sl_free(handle->core, sl_server_take_refusal(&handle->server));
    lua_pushinteger(L, handle->server.refusals_lost);
    handle->server.refusals_lost = 0;
    return 2;
}

/*
 * listener:refused() -> { status=, bytes=, seconds=, id=, remote=, method=, path= } of a request
 * that ended before accept(), and how many more were not kept; nil once closed; waits
 */
static int l_server_refused(lua_State *L)
{
    check_server(L);
    return k_server_refused(L, LUA_OK, 0);
}

/* listener:close(): closes everything at once; idempotent */
static int l_server_close(lua_State *L)
{
    server_handle_close(sl_server_check(L, server_type));
    return 0;
}

static int l_server_gc(lua_State *L)
{
    server_handle_fini(sl_server_check(L, server_type));
    return 0;
}

static const luaL_Reg server_methods[] = {
    {"accept", l_server_accept},   {"address", l_server_address},
    {"counts", l_server_counts},   {"stop", l_server_stop},
    {"drained", l_server_drained}, {"refused", l_server_refused},
    {"close", l_server_close},     {NULL, NULL},
};

static const luaL_Reg server_metamethods[] = {
    {"__gc", l_server_gc},
    {"__close", l_server_close},
    {NULL, NULL},
};

static const luaL_Reg server_functions[] = {
    {"listen", l_server_listen},
    {NULL, NULL},
};

int luaopen_sluice_core_server(lua_State *L)
{
    sl_server_make_type(L, server_type, server_metamethods, server_methods);
    sl_exchange_make_type(L);
    luaL_newlib(L, server_functions);
    return 1;
}
