/* SPDX-License-Identifier: MIT */
/* sluice.core.http: engines and transfers for Lua, without defaults or policy (sluice.http has). */
#include "answer_lua.h"
#include "url_lua.h"

#include <limits.h>
#include <string.h>

LUAMOD_API int luaopen_sluice_core_http(lua_State *L);

static const char http_engine_type[] = "sluice.http.engine";
static const char http_transfer_type[] = "sluice.http.transfer";
static const char http_settings_type[] = "sluice.http.settings";

enum {
    /** Transfers kept for later requests: the userdata, its finalizer and its buffers cost more
     * than the rest of the binding. */
    HTTP_MAX_POOLED = 256,
    /** Header fields that need no memory for a request's list of them. */
    HTTP_FEW_FIELDS = 16,
};

/** User value: the transfers that wait to be used again, an array. */
typedef struct lua_engine {
    /** NULL when closed. */
    sl_http_engine *engine;
    sl_core *core;
    sl_close_hook hook;
    int pooled;
} lua_engine;

/** User values: the request's body, the engine. */
typedef struct lua_transfer {
    sl_http_transfer transfer;
    sl_core *core;
    /** The task that waits for it. */
    sl_task *waiter;
} lua_transfer;

/* ---- engines ---- */

static void lua_engine_close(lua_engine *self)
{
    sl_http_engine *engine = self->engine;
    self->engine = NULL;
    sl_close_hook_remove(&self->hook);
    sl_http_engine_close(engine);
}

static void on_http_core_close(sl_close_hook *hook)
{
    lua_engine_close((lua_engine *)(void *)((char *)hook - offsetof(lua_engine, hook)));
}

static lua_engine *check_engine(lua_State *L)
{
    lua_engine *self = luaL_checkudata(L, 1, http_engine_type);
    if (!self->engine)
        luaL_error(L, "the client is closed");
    return self;
}

static unsigned field_count_of(lua_State *L, int options, const char *name)
{
    lua_getfield(L, options, name);
    lua_Integer count = luaL_optinteger(L, -1, 0);
    lua_pop(L, 1);
    return count < 0 || count > INT_MAX ? INT_MAX : (unsigned)count;
}

static bool flag_of_field(lua_State *L, int settings, const char *name)
{
    lua_getfield(L, settings, name);
    bool flag = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return flag;
}

/** Stays in the caller's table for as long as the pointer is used. */
static const char *text_of_field(lua_State *L, int options, const char *name)
{
    lua_getfield(L, options, name);
    const char *text = luaL_optstring(L, -1, NULL);
    lua_pop(L, 1);
    return text;
}

static void http_read_files(lua_State *L, int index, sl_http_engine_options *options)
{
    options->ca_file = text_of_field(L, index, "ca_file");
    options->certificate = text_of_field(L, index, "cert");
    options->key = text_of_field(L, index, "key");
    options->key_password = text_of_field(L, index, "key_password");
    if (options->ca_file)
        sl_require_capability(L, SL_CAN_READ_FILES, "http.client: ca_file");
    if (options->certificate || options->key)
        sl_require_capability(L, SL_CAN_READ_FILES, "http.client: cert and key");
}

/** { ca_file =, cert =, key =, key_password =, max_connections =, max_per_host =, max_waiting =,
 * http_proxy =, https_proxy =, no_proxy =, unix =, http2 =, dns_servers =, dns_over_tcp = } */
static int l_http_open(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    sl_http_engine_options options = {
        .max_connections = field_count_of(L, 1, "max_connections"),
        .max_per_host = field_count_of(L, 1, "max_per_host"),
        .max_waiting = field_count_of(L, 1, "max_waiting"),
        .http_proxy = text_of_field(L, 1, "http_proxy"),
        .https_proxy = text_of_field(L, 1, "https_proxy"),
        .no_proxy = text_of_field(L, 1, "no_proxy"),
        .unix_path = text_of_field(L, 1, "unix"),
        .http2 = flag_of_field(L, 1, "http2"),
        .resolver.servers = text_of_field(L, 1, "dns_servers"),
        .resolver.over_tcp = flag_of_field(L, 1, "dns_over_tcp"),
    };
    http_read_files(L, 1, &options);
    sl_core *core = sl_core_of(L);
    lua_engine *self = lua_newuserdatauv(L, sizeof *self, 1);
    memset(self, 0, sizeof *self);
    luaL_setmetatable(L, http_engine_type);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    self->core = core;
    self->hook.on_close = on_http_core_close;
    const char *reason;
    self->engine = sl_http_engine_open(core, &options, &reason);
    if (!self->engine) {
        lua_pushnil(L);
        lua_pushstring(L, reason);
        return 2;
    }
    sl_close_hook_add(core, &self->hook);
    return 1;
}

static int l_engine_close(lua_State *L)
{
    lua_engine_close(luaL_checkudata(L, 1, http_engine_type));
    return 0;
}

static int l_engine_is_open(lua_State *L)
{
    const lua_engine *self = luaL_checkudata(L, 1, http_engine_type);
    lua_pushboolean(L, self->engine != NULL);
    return 1;
}

static int l_engine_warm_up(lua_State *L)
{
    sl_http_engine_warm_up(check_engine(L)->engine);
    return 0;
}

static void http_set_count(lua_State *L, const char *name, size_t count)
{
    lua_pushinteger(L, (lua_Integer)count);
    lua_setfield(L, -2, name);
}

static int l_engine_stats(lua_State *L)
{
    sl_http_stats stats;
    sl_http_engine_stats(check_engine(L)->engine, &stats);
    lua_createtable(L, 0, 4);
    http_set_count(L, "open", stats.open);
    http_set_count(L, "idle", stats.idle);
    http_set_count(L, "active", stats.active);
    http_set_count(L, "waiting", stats.waiting);
    return 1;
}

/* ---- waiting for a transfer ---- */

static void on_transfer_change(sl_http_transfer *transfer)
{
    lua_transfer *self = (lua_transfer *)transfer;
    sl_task *task = self->waiter;
    if (!task)
        return;
    self->waiter = NULL;
    sl_wake(task);
}

/** A cancelled request's connection closes at once. */
static void on_transfer_cancel(sl_task *task, void *object)
{
    (void)task;
    lua_transfer *self = object;
    self->waiter = NULL;
    sl_http_transfer_stop(&self->transfer);
}

static int transfer_wait(lua_State *L, lua_transfer *self, lua_KContext ctx, lua_KFunction k)
{
    if (self->waiter)
        return luaL_error(L, "another task waits for this response");
    sl_wait_check(L);
    self->waiter = sl_task_current(self->core);
    return sl_wait_checked(L, self->transfer.label, on_transfer_cancel, self, ctx, k);
}

static lua_transfer *check_transfer(lua_State *L)
{
    return luaL_checkudata(L, 1, http_transfer_type);
}

/* ---- the answer ---- */

enum {
    ARG_METHOD = 2,
    ARG_URL,
    ARG_FIELDS,
    /** A string, nil, or true: it comes by transfer:send. */
    ARG_BODY,
    ARG_SETTINGS,
    /** Where perform has its transfer, which Lua never sees unless it is a stream. */
    ARG_TRANSFER,
};

/** Ends a transfer whose answer was pushed; keeps one that nobody else knows. */
static void give_back_transfer(lua_State *L, int index)
{
    lua_transfer *self = lua_touserdata(L, index);
    lua_engine *engine = index == ARG_TRANSFER ? lua_touserdata(L, 1) : NULL;
    if (!engine || !self->transfer.engine || engine->pooled >= HTTP_MAX_POOLED) {
        sl_http_transfer_stop(&self->transfer);
        return;
    }
    sl_http_transfer_reset(&self->transfer);
    lua_pushnil(L);
    lua_setiuservalue(L, index, 1);
    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, index);
    lua_rawseti(L, -2, ++engine->pooled);
    lua_pop(L, 1);
}

/**
 * Continues when the head (streamed) or all of it is there. `ctx` is the transfer's place on the
 * stack. Gives status, record (see answer_lua.h), body (or the transfer).
 */
static int transfer_answer(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    lua_transfer *self = lua_touserdata(L, (int)ctx);
    sl_http_transfer *transfer = &self->transfer;
    bool ready = transfer->streamed && transfer->head_complete;
    if (!ready && !sl_http_transfer_is_over(transfer))
        return transfer_wait(L, self, ctx, transfer_answer);
    if (!ready && transfer->state != SL_HTTP_DONE) {
        int count = sl_http_push_failure(L, transfer);
        give_back_transfer(L, (int)ctx);
        return count;
    }
    lua_pushinteger(L, transfer->status);
    sl_http_push_record(L, transfer);
    if (transfer->streamed) {
        if (sl_http_transfer_head_taken(transfer)) {
            lua_pushnil(L);
            lua_setiuservalue(L, (int)ctx, 1);
        }
        lua_pushvalue(L, (int)ctx);
        return 3;
    }
    lua_pushlstring(L, transfer->body.data ? transfer->body.data : "", transfer->body.size);
    give_back_transfer(L, (int)ctx);
    return 3;
}

/* ---- starting one ---- */

static int64_t limit_of_field(lua_State *L, int settings, const char *name)
{
    lua_getfield(L, settings, name);
    bool given = lua_isnumber(L, -1);
    lua_Number seconds = lua_tonumber(L, -1);
    lua_pop(L, 1);
    /* a thousand years are no limit; they would overflow */
    if (!given || seconds > 3.2e10)
        return 0;
    int64_t microseconds = seconds > 0 ? (int64_t)(seconds * 1e6) : 0;
    return microseconds > 0 ? microseconds : 1;
}

/** { stream =, verify =, decompress =, queue =, connect =, first_byte =, idle =, total =,
 * max_response =, ca_file = }: read once, for many requests. */
static int l_http_settings(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    sl_http_settings *settings = lua_newuserdatauv(L, sizeof *settings, 1);
    *settings = (sl_http_settings){
        .streamed = flag_of_field(L, 1, "stream"),
        .verify = flag_of_field(L, 1, "verify"),
        .decompress = flag_of_field(L, 1, "decompress"),
        .limits[SL_HTTP_QUEUE] = limit_of_field(L, 1, "queue"),
        .limits[SL_HTTP_CONNECT] = limit_of_field(L, 1, "connect"),
        .limits[SL_HTTP_FIRST_BYTE] = limit_of_field(L, 1, "first_byte"),
        .limits[SL_HTTP_IDLE] = limit_of_field(L, 1, "idle"),
        .limits[SL_HTTP_TOTAL] = limit_of_field(L, 1, "total"),
    };
    luaL_setmetatable(L, http_settings_type);
    lua_getfield(L, 1, "max_response");
    settings->max_response = (uint64_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
    lua_getfield(L, 1, "ca_file");
    settings->ca_file = lua_tostring(L, -1);
    if (settings->ca_file)
        sl_require_capability(L, SL_CAN_READ_FILES, "http.request: ca_file");
    lua_setiuservalue(L, 2, 1);
    return 1;
}

/** { name, value, name, value, ... }, put into `few`, or where they are more into memory of Lua's
 * on the stack. */
static void http_read_fields(lua_State *L, int index, sl_http_request *request, sl_http_field *few)
{
    lua_Unsigned count = lua_rawlen(L, index) / 2;
    if (count == 0)
        return;
    luaL_argcheck(L, count < 10000, index, "too many headers");
    sl_http_field *fields = few;
    if (count > HTTP_FEW_FIELDS)
        fields = lua_newuserdatauv(L, (size_t)count * sizeof *fields, 0);
    for (lua_Unsigned i = 0; i < count; i++) {
        lua_rawgeti(L, index, (lua_Integer)(2 * i + 1));
        lua_rawgeti(L, index, (lua_Integer)(2 * i + 2));
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
            luaL_argerror(L, index, "a header is not made of strings");
        fields[i].name = lua_tolstring(L, -2, &fields[i].name_size);
        fields[i].value = lua_tolstring(L, -1, &fields[i].value_size);
        lua_pop(L, 2);
    }
    request->fields = fields;
    request->field_count = (size_t)count;
}

/** Pushes a transfer, a kept one or a new one; the engine is at 1. */
static lua_transfer *push_transfer(lua_State *L, lua_engine *engine)
{
    if (engine->pooled > 0) {
        lua_getiuservalue(L, 1, 1);
        lua_rawgeti(L, -1, engine->pooled);
        lua_pushnil(L);
        lua_rawseti(L, -3, engine->pooled--);
        lua_remove(L, -2);
        return lua_touserdata(L, -1);
    }
    lua_transfer *self = lua_newuserdatauv(L, sizeof *self, 2);
    memset(self, 0, sizeof *self);
    luaL_setmetatable(L, http_transfer_type);
    self->core = engine->core;
    self->transfer.on_change = on_transfer_change;
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 2);
    return self;
}

/** Leaves the transfer at ARG_TRANSFER and returns it; NULL with nil and a text pushed. */
static lua_transfer *start_transfer(lua_State *L)
{
    lua_engine *engine = check_engine(L);
    sl_http_request request = {.method = luaL_checkstring(L, ARG_METHOD)};
    request.url = luaL_checklstring(L, ARG_URL, &request.url_size);
    luaL_checktype(L, ARG_FIELDS, LUA_TTABLE);
    request.settings = luaL_checkudata(L, ARG_SETTINGS, http_settings_type);
    lua_settop(L, ARG_SETTINGS);
    request.upload = lua_type(L, ARG_BODY) == LUA_TBOOLEAN;
    if (!request.upload)
        request.body = luaL_optlstring(L, ARG_BODY, NULL, &request.body_size);
    sl_require_capability(L, SL_CAN_CONNECT, "http.request");
    sl_require_real_time(L, "http.request");
    sl_wait_check(L);
    lua_transfer *self = push_transfer(L, engine);
    lua_pushvalue(L, ARG_BODY);
    lua_setiuservalue(L, ARG_TRANSFER, 1);
    sl_http_field few[HTTP_FEW_FIELDS];
    http_read_fields(L, ARG_FIELDS, &request, few);
    const char *reason = sl_http_transfer_start(engine->engine, &self->transfer, &request);
    lua_settop(L, ARG_TRANSFER);
    if (!reason)
        return self;
    lua_pushnil(L);
    lua_pushstring(L, reason);
    return NULL;
}

/** (method, url, fields, body, settings): a transfer that has started, or nil and what is wrong. */
static int l_engine_start(lua_State *L)
{
    return start_transfer(L) ? 1 : 2;
}

/** The same, and waits for the answer: see transfer_answer; nil and a text for a wrong request. */
static int l_engine_perform(lua_State *L)
{
    if (!start_transfer(L))
        return 2;
    return transfer_answer(L, LUA_OK, ARG_TRANSFER);
}

/* ---- methods of a transfer ---- */

static int l_transfer_answer(lua_State *L)
{
    check_transfer(L);
    lua_settop(L, 1);
    return transfer_answer(L, LUA_OK, 1);
}

static int transfer_read(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    lua_transfer *self = lua_touserdata(L, (int)ctx);
    sl_http_transfer *transfer = &self->transfer;
    size_t size = transfer->body.size - transfer->body.taken;
    if (size > 0) {
        lua_pushlstring(L, transfer->body.data + transfer->body.taken, size);
        sl_http_transfer_taken(transfer, size);
        return 1;
    }
    if (transfer->state == SL_HTTP_DONE)
        return 0;
    if (sl_http_transfer_is_over(transfer))
        return sl_http_push_failure(L, transfer);
    if (transfer->late) {
        lua_pushboolean(L, 0);
        return 1;
    }
    return transfer_wait(L, self, ctx, transfer_read);
}

static int64_t due_of_argument(lua_State *L, int index, sl_core *core)
{
    enum { LONGEST = 1000000000 };
    if (lua_isnoneornil(L, index))
        return 0;
    lua_Number seconds = luaL_checknumber(L, index);
    if (seconds >= LONGEST)
        return 0;
    return sl_now_update(core) + (seconds > 0 ? (int64_t)(seconds * 1e6) : 0);
}

/** The next piece, nothing at the end, or nil and a failure; false when it has not come within so
 * many seconds, where they are given. */
static int l_transfer_read(lua_State *L)
{
    lua_transfer *self = check_transfer(L);
    sl_http_transfer_expect(&self->transfer, due_of_argument(L, 2, self->core));
    lua_settop(L, 1);
    return transfer_read(L, LUA_OK, 1);
}

static int transfer_send(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    lua_transfer *self = lua_touserdata(L, 1);
    sl_http_transfer *transfer = &self->transfer;
    size_t size;
    const char *piece = lua_tolstring(L, 2, &size);
    bool wanted = !sl_http_transfer_is_over(transfer) && !transfer->head_complete;
    int sent = wanted ? sl_http_transfer_send(transfer, piece, size) : 1;
    if (sent < 0)
        return luaL_error(L, "not enough memory");
    if (sent == 0)
        return transfer_wait(L, self, ctx, transfer_send);
    lua_pushboolean(L, wanted);
    return 1;
}

/** One more piece of the body, or its end; false when the server does not want any more. */
static int l_transfer_send(lua_State *L)
{
    lua_transfer *self = check_transfer(L);
    if (lua_isnoneornil(L, 2)) {
        if (!sl_http_transfer_is_over(&self->transfer))
            sl_http_transfer_send_end(&self->transfer);
        return 0;
    }
    luaL_checkstring(L, 2);
    lua_settop(L, 2);
    return transfer_send(L, LUA_OK, 0);
}

static int l_transfer_facts(lua_State *L)
{
    sl_http_push_facts(L, &check_transfer(L)->transfer);
    return 1;
}

/** The one way out: close, __close, __gc. */
static int l_transfer_close(lua_State *L)
{
    lua_transfer *self = check_transfer(L);
    sl_http_transfer_stop(&self->transfer);
    on_transfer_change(&self->transfer);
    return 0;
}

static int l_transfer_tostring(lua_State *L)
{
    const lua_transfer *self = check_transfer(L);
    const sl_http_transfer *transfer = &self->transfer;
    lua_pushfstring(L, "sluice.http.transfer: %s %s", transfer->method, transfer->label);
    return 1;
}

static const luaL_Reg http_engine_methods[] = {
    {"start", l_engine_start},
    {"perform", l_engine_perform},
    {"stats", l_engine_stats},
    {"is_open", l_engine_is_open},
    {"close", l_engine_close},
    {"warm_up", l_engine_warm_up},
    {NULL, NULL},
};

static const luaL_Reg http_engine_metamethods[] = {
    {"__gc", l_engine_close},
    {"__close", l_engine_close},
    {NULL, NULL},
};

static const luaL_Reg http_transfer_methods[] = {
    {"answer", l_transfer_answer}, {"read", l_transfer_read},   {"send", l_transfer_send},
    {"facts", l_transfer_facts},   {"close", l_transfer_close}, {NULL, NULL},
};

static const luaL_Reg http_transfer_metamethods[] = {
    {"__gc", l_transfer_close},
    {"__close", l_transfer_close},
    {"__tostring", l_transfer_tostring},
    {NULL, NULL},
};

static const luaL_Reg http_functions[] = {
    {"open", l_http_open},
    {"facts", sl_http_record_facts},
    {"fields", sl_http_record_fields},
    {"reason", sl_http_record_reason},
    {"settings", l_http_settings},
    {"join", sl_http_join_lua},
    {NULL, NULL},
};

static void http_register_type(lua_State *L, const char *type, const luaL_Reg *methods,
                               const luaL_Reg *metamethods)
{
    luaL_newmetatable(L, type);
    luaL_setfuncs(L, metamethods, 0);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

int luaopen_sluice_core_http(lua_State *L)
{
    http_register_type(L, http_engine_type, http_engine_methods, http_engine_metamethods);
    http_register_type(L, http_transfer_type, http_transfer_methods, http_transfer_metamethods);
    luaL_newmetatable(L, http_settings_type);
    lua_pop(L, 1);
    luaL_newlib(L, http_functions);
    return 1;
}
