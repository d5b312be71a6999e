/* SPDX-License-Identifier: MIT */
/*
 * Lua's view of one request and its answer. The task that took an exchange reads it, answers it and
 * closes it. The events of the engine only wake tasks.
 */
#include "../socket/address.h"
#include "server_lua.h"

#include <string.h>

static const char exchange_type[] = "sluice.exchange";

/* ---- events: store and wake ---- */

void sl_exchange_handle_on_body(sl_exchange *x)
{
    sl_exchange_handle *handle = x->holder;
    sl_waitlist_wake(&handle->readers, SIZE_MAX);
}

void sl_exchange_handle_on_room(sl_exchange *x)
{
    sl_exchange_handle *handle = x->holder;
    sl_waitlist_wake(&handle->writers, SIZE_MAX);
}

void sl_exchange_handle_on_gone(sl_exchange *x)
{
    sl_exchange_handle *handle = x->holder;
    sl_task *owner = handle->owner;
    handle->owner = NULL;
    /* First, so that it hears of the cancellation rather than of a failed read or write. */
    if (owner)
        sl_task_cancel(owner, "the client has left");
    sl_waitlist_wake(&handle->readers, SIZE_MAX);
    sl_waitlist_wake(&handle->writers, SIZE_MAX);
}

sl_exchange_handle *sl_exchange_handle_new(lua_State *L, sl_core *core)
{
    sl_exchange_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    memset(handle, 0, sizeof *handle);
    handle->core = core;
    luaL_setmetatable(L, exchange_type);
    return handle;
}

static void exchange_handle_close(sl_exchange_handle *handle)
{
    sl_exchange *x = handle->x;
    handle->x = NULL;
    handle->owner = NULL;
    sl_close_hook_remove(&handle->hook);
    if (x)
        sl_exchange_drop(x);
}

static void on_exchange_core_close(sl_close_hook *hook)
{
    char *address = (char *)hook - offsetof(sl_exchange_handle, hook);
    exchange_handle_close((sl_exchange_handle *)(void *)address);
}

void sl_exchange_handle_open(sl_exchange_handle *handle, sl_exchange *x)
{
    handle->x = x;
    x->holder = handle;
    handle->hook.on_close = on_exchange_core_close;
    sl_close_hook_add(handle->core, &handle->hook);
}

/* ---- its request ---- */

static sl_exchange_handle *check_open(lua_State *L, sl_exchange_handle *handle)
{
    luaL_argcheck(L, handle->x, 1, "the exchange is closed");
    return handle;
}

static sl_exchange_handle *check_exchange(lua_State *L)
{
    return check_open(L, sl_server_check(L, exchange_type));
}

sl_exchange_handle *sl_exchange_handle_check(lua_State *L)
{
    return check_exchange(L);
}

static void push_span(lua_State *L, const sl_exchange *x, sl_span span)
{
    lua_pushlstring(L, x->bytes + span.at, span.length);
}

/** Of an absolute target only what an origin form would hold. */
static void push_target(lua_State *L, const sl_exchange *x)
{
    const char *target = x->bytes + x->head.target.at;
    const char *end = target + x->head.target.length;
    if (*target == '/' || *target == '*') {
        lua_pushlstring(L, target, x->head.target.length);
        return;
    }
    const char *path = memchr(target, ':', (size_t)(end - target)) ? target : end;
    path = memchr(path, ':', (size_t)(end - path));
    path = path ? path + 3 : end;
    while (path < end && *path != '/' && *path != '?')
        path++;
    lua_pushstring(L, path < end && *path == '/' ? "" : "/");
    lua_pushlstring(L, path, (size_t)(end - path));
    lua_concat(L, 2);
}

/** Of the target on top of the stack. */
static void push_path(lua_State *L)
{
    size_t length;
    const char *target = lua_tolstring(L, -1, &length);
    const char *query = memchr(target, '?', length);
    if (query)
        lua_pushlstring(L, target, (size_t)(query - target));
    else
        lua_pushvalue(L, -1);
}

/*
 * exchange:begin() -> method, target, path (the target without its query). From here on the calling
 * task is cancelled when the client leaves; it must close the exchange before it ends.
 */
static int l_exchange_begin(lua_State *L)
{
    sl_exchange_handle *handle = check_exchange(L);
    const sl_exchange *x = handle->x;
    handle->owner = sl_task_current(handle->core);
    if (sl_exchange_is_gone(x) && handle->owner) {
        sl_task_cancel(handle->owner, "the client has left");
        handle->owner = NULL;
    }
    lua_pushstring(L, x->head.method);
    push_target(L, x);
    push_path(L);
    return 3;
}

/* exchange:id() -> the client's request id where that is usable, else one of ours */
static int l_exchange_id(lua_State *L)
{
    char text[SL_REQUEST_ID_SIZE];
    size_t length;
    const char *id = sl_exchange_id(check_exchange(L)->x, text, &length);
    lua_pushlstring(L, id, length);
    return 1;
}

/* exchange:headers() -> { name, value, name, value, ... } */
static int l_exchange_headers(lua_State *L)
{
    const sl_exchange *x = check_exchange(L)->x;
    lua_createtable(L, 2 * x->head.count, 0);
    for (int i = 0; i < x->head.count; i++) {
        push_span(L, x, x->head.fields[i].name);
        lua_rawseti(L, -2, 2 * i + 1);
        push_span(L, x, x->head.fields[i].value);
        lua_rawseti(L, -2, 2 * i + 2);
    }
    return 1;
}

/* exchange:field(name) -> the value of a field that came once, else nil */
static int l_exchange_field(lua_State *L)
{
    const sl_exchange *x = check_exchange(L)->x;
    size_t length;
    const char *name = luaL_checklstring(L, 2, &length);
    int found = -1;
    for (int i = 0; i < x->head.count; i++) {
        sl_span each = x->head.fields[i].name;
        if (each.length != length || strncasecmp(x->bytes + each.at, name, length) != 0)
            continue;
        if (found >= 0)
            return 0;
        found = i;
    }
    if (found < 0)
        return 0;
    push_span(L, x, x->head.fields[found].value);
    return 1;
}

/* exchange:remote() -> text | nil */
static int l_exchange_remote(lua_State *L)
{
    char text[SL_ADDRESS_TEXT];
    if (!sl_exchange_peer(check_exchange(L)->x, text, sizeof text))
        return 0;
    lua_pushstring(L, text);
    return 1;
}

/*
 * exchange:outcome() -> status or nil where no answer began, bytes of its body, seconds since the
 * head came, whether the answer was complete
 */
static int l_exchange_outcome(lua_State *L)
{
    sl_exchange_handle *handle = check_exchange(L);
    const sl_exchange *x = handle->x;
    if (x->started)
        lua_pushinteger(L, x->status);
    else
        lua_pushnil(L);
    lua_pushinteger(L, (lua_Integer)x->written);
    lua_pushnumber(L, (lua_Number)(sl_now_update(handle->core) - x->since) / 1e6);
    lua_pushboolean(L, x->finished);
    return 4;
}

/* ---- its body ---- */

static int push_body_failure(lua_State *L, const sl_exchange *x)
{
    lua_pushnil(L);
    if (x->failure == 413) {
        lua_pushliteral(L, "PayloadTooLarge");
        lua_pushliteral(L, "the request body is larger than this server takes");
    } else if (x->failure == 408) {
        lua_pushliteral(L, "RequestTimeout");
        lua_pushliteral(L, "the request body did not arrive in time");
    } else if (x->failure) {
        lua_pushliteral(L, "MalformedRequest");
        lua_pushliteral(L, "the chunks of the request body break the rules");
    } else {
        lua_pushliteral(L, "ClientGone");
        lua_pushliteral(L, "the client left before its request was complete");
    }
    return 3;
}

static int push_content(lua_State *L, sl_exchange *x)
{
    size_t length = sl_bytes_length(&x->content);
    lua_pushlstring(L, sl_bytes_front(&x->content), length);
    sl_bytes_consume(x->core, &x->content, length);
    sl_exchange_consumed(x);
    return 1;
}

/** What a reader gets now: a number of results, or -1 to wait. */
static int read_now(lua_State *L, sl_exchange *x, bool all)
{
    bool ended = sl_body_ended(&x->body);
    if (all ? ended : sl_bytes_length(&x->content) > 0)
        return push_content(L, x);
    if (ended)
        return 0;
    if (x->failure || !x->connection)
        return push_body_failure(L, x);
    return -1;
}

static int k_exchange_read(lua_State *L, int status, lua_KContext all)
{
    (void)status;
    sl_exchange_handle *handle = check_open(L, lua_touserdata(L, 1));
    int results = read_now(L, handle->x, all);
    if (results < 0) {
        sl_exchange_want(handle->x, all);
        results = read_now(L, handle->x, all);
    }
    if (results >= 0)
        return results;
    return sl_waitlist_wait(L, &handle->readers, "the request body", all, k_exchange_read);
}

/* exchange:read() -> the next piece of the body; nil at its end; nil, kind, message; waits */
static int l_exchange_read(lua_State *L)
{
    check_exchange(L);
    return k_exchange_read(L, LUA_OK, false);
}

/* exchange:read_all() -> what of the body was not read yet; nil, kind, message; waits */
static int l_exchange_read_all(lua_State *L)
{
    check_exchange(L);
    return k_exchange_read(L, LUA_OK, true);
}

/* ---- its answer ---- */

static int push_sent(lua_State *L, const sl_exchange *x)
{
    if (!sl_exchange_is_gone(x)) {
        lua_pushboolean(L, true);
        return 1;
    }
    lua_pushnil(L);
    lua_pushliteral(L, "the client has left");
    return 2;
}

/* These return NULL, or what is wrong (static text). */

static const char *add_field(lua_State *L, sl_exchange *x, int name, int value)
{
    size_t name_length, value_length;
    if (lua_type(L, name) != LUA_TSTRING ||
        (lua_type(L, value) != LUA_TSTRING && lua_type(L, value) != LUA_TNUMBER))
        return "a header is a name and a text or a number";
    const char *name_text = lua_tolstring(L, name, &name_length);
    const char *value_text = lua_tolstring(L, value, &value_length);
    return sl_exchange_field(x, name_text, name_length, value_text, value_length);
}

/** The value on top belongs to the name below it: a text, or an array of texts. */
static const char *add_values(lua_State *L, sl_exchange *x, int name)
{
    int value = lua_gettop(L);
    const char *wrong = NULL;
    if (!lua_istable(L, value))
        return add_field(L, x, name, value);
    for (lua_Integer i = 1; !wrong && lua_rawgeti(L, value, i) != LUA_TNIL; i++) {
        wrong = add_field(L, x, name, value + 1);
        lua_settop(L, value);
    }
    lua_settop(L, value);
    return wrong;
}

/** From a map of names to values, or an array of { name, value }. */
static const char *add_fields(lua_State *L, sl_exchange *x, int table)
{
    const char *wrong = NULL;
    lua_pushnil(L);
    while (!wrong && lua_next(L, table)) {
        int top = lua_gettop(L);
        if (lua_type(L, top - 1) == LUA_TNUMBER && lua_istable(L, top)) {
            lua_rawgeti(L, top, 1);
            lua_rawgeti(L, top, 2);
            wrong = add_field(L, x, top + 1, top + 2);
        } else {
            lua_pushvalue(L, top - 1); /* lua_next needs its key untouched */
            lua_pushvalue(L, top);
            wrong = add_values(L, x, top + 1);
        }
        lua_settop(L, top - 1);
    }
    return wrong;
}

/** The fields that the table at 3 has, and the type at 5 where it has none. */
static const char *add_all(lua_State *L, sl_exchange *x)
{
    static const char name[] = "Content-Type";
    size_t length;
    const char *wrong = lua_istable(L, 3) ? add_fields(L, x, 3) : NULL;
    if (wrong || x->has_type || lua_type(L, 5) != LUA_TSTRING)
        return wrong;
    const char *type = lua_tolstring(L, 5, &length);
    return sl_exchange_field(x, name, sizeof name - 1, type, length);
}

int sl_exchange_handle_wait(lua_State *L, sl_exchange_handle *handle, lua_KContext ctx,
                            lua_KFunction k)
{
    handle->x->wants_room = true;
    return sl_waitlist_wait(L, &handle->writers, "a slow client", ctx, k);
}

int sl_exchange_handle_write(lua_State *L, sl_exchange_handle *handle, int index, size_t done,
                             lua_KFunction k)
{
    size_t length;
    const char *bytes = lua_tolstring(L, index, &length);
    while (done < length && handle->x->connection) {
        if (sl_exchange_backlog(handle->x) >= SL_HIGH_WATER)
            return sl_exchange_handle_wait(L, handle, (lua_KContext)done, k);
        size_t step = length - done < SL_HIGH_WATER ? length - done : SL_HIGH_WATER;
        const char *wrong = sl_exchange_write(handle->x, bytes + done, step);
        if (wrong)
            return luaL_error(L, "answer: %s", wrong);
        done += step;
        if (done < length || length > SL_HIGH_WATER)
            (void)sl_exchange_flush(handle->x);
    }
    return -1;
}

/** Writes the head of l_exchange_respond's arguments, but for its end. 0, or results to return. */
static int begin_head(lua_State *L, sl_exchange *x)
{
    int status = (int)luaL_checkinteger(L, 2);
    luaL_argcheck(L, status >= 200 && status <= 599, 2, "200 to 599 expected");
    if (x->started)
        return luaL_error(L, "answer: it has begun before");
    if (!sl_exchange_begin(x, status))
        return push_sent(L, x);
    const char *wrong = add_all(L, x);
    if (!wrong)
        return 0;
    sl_exchange_rewind(x);
    lua_settop(L, 0);
    lua_pushboolean(L, false);
    lua_pushfstring(L, "answer: %s", wrong);
    return 2;
}

static int k_exchange_respond(lua_State *L, int status, lua_KContext done)
{
    (void)status;
    sl_exchange_handle *handle = check_open(L, lua_touserdata(L, 1));
    int waits = sl_exchange_handle_write(L, handle, 4, (size_t)done, k_exchange_respond);
    if (waits >= 0)
        return waits;
    sl_exchange_finish(handle->x);
    return push_sent(L, handle->x);
}

/*
 * exchange:respond(status, headers or nil, body or nil, type or nil)
 *   -> true | nil, message, the client has left | false, message: a header cannot be sent
 * With a body (a text) the answer is complete, and the call waits while the client is slow; without
 * one write() and finish() follow. `type` is the Content-Type where headers have none.
 */
static int l_exchange_respond(lua_State *L)
{
    sl_exchange_handle *handle = check_exchange(L);
    sl_exchange *x = handle->x;
    size_t length = 0;
    bool whole = !lua_isnoneornil(L, 4);
    if (whole)
        luaL_checklstring(L, 4, &length);
    lua_settop(L, 5);
    int results = begin_head(L, x);
    if (results)
        return results;
    sl_exchange_end_head(x, whole ? (int64_t)length : -1);
    if (whole)
        return k_exchange_respond(L, LUA_OK, 0);
    (void)sl_exchange_flush(x);
    return push_sent(L, x);
}

/*
 * exchange:hold(status, headers or nil, seconds, type or nil) -> as respond(), for a stream:
 * the head is sent with the first write, with finish(), or after so many seconds (0: never) with a
 * comment of an event stream, as often as such a silence lasts; until then respond() takes it back.
 */
static int l_exchange_hold(lua_State *L)
{
    sl_exchange_handle *handle = check_exchange(L);
    sl_exchange *x = handle->x;
    double seconds = luaL_checknumber(L, 4);
    luaL_argcheck(L, seconds >= 0 && seconds < 1e9, 4, "0 to 1e9 seconds expected");
    lua_settop(L, 5);
    int results = begin_head(L, x);
    if (results)
        return results;
    sl_exchange_end_head(x, -1);
    sl_exchange_hold(x, (int64_t)(seconds * 1e6));
    return push_sent(L, x);
}

static int k_exchange_write(lua_State *L, int status, lua_KContext done)
{
    (void)status;
    sl_exchange_handle *handle = check_open(L, lua_touserdata(L, 1));
    sl_exchange *x = handle->x;
    int waits = sl_exchange_handle_write(L, handle, 2, (size_t)done, k_exchange_write);
    if (waits >= 0)
        return waits;
    (void)sl_exchange_flush_soon(x);
    if (!sl_exchange_is_full(x))
        return push_sent(L, x);
    return sl_exchange_handle_wait(L, handle, (lua_KContext)lua_rawlen(L, 2), k_exchange_write);
}

/* exchange:write(piece) -> true | nil, message; sent at once, or with what follows in the same
 * turn; waits while 64 KB are not sent, and in a stream until the kernel has taken it */
static int l_exchange_write(lua_State *L)
{
    check_exchange(L);
    luaL_checkstring(L, 2);
    lua_settop(L, 2);
    return k_exchange_write(L, LUA_OK, 0);
}

/* exchange:finish() -> true | nil, message */
static int l_exchange_finish(lua_State *L)
{
    sl_exchange_handle *handle = check_exchange(L);
    sl_exchange_finish(handle->x);
    return push_sent(L, handle->x);
}

/* exchange:abort(): cuts the connection */
static int l_exchange_abort(lua_State *L)
{
    sl_exchange_abort(check_exchange(L)->x);
    return 0;
}

/* exchange:close(), __close: gives it back; what is not finished is cut. Idempotent. */
static int l_exchange_close(lua_State *L)
{
    sl_exchange_handle *handle = sl_server_check(L, exchange_type);
    exchange_handle_close(handle);
    sl_waitlist_wake(&handle->readers, SIZE_MAX);
    sl_waitlist_wake(&handle->writers, SIZE_MAX);
    return 0;
}

/* Nobody can be waiting: a task that does holds the handle. */
static int l_exchange_gc(lua_State *L)
{
    exchange_handle_close(sl_server_check(L, exchange_type));
    return 0;
}

static int l_exchange_tostring(lua_State *L)
{
    sl_exchange_handle *handle = sl_server_check(L, exchange_type);
    lua_pushfstring(L, "sluice.exchange: %s", handle->x ? handle->x->head.method : "closed");
    return 1;
}

static const luaL_Reg exchange_methods[] = {
    {"begin", l_exchange_begin},
    {"id", l_exchange_id},
    {"field", l_exchange_field},
    {"headers", l_exchange_headers},
    {"remote", l_exchange_remote},
    {"outcome", l_exchange_outcome},
    {"read", l_exchange_read},
    {"read_all", l_exchange_read_all},
    {"respond", l_exchange_respond},
    {"hold", l_exchange_hold},
    {"write", l_exchange_write},
    {"finish", l_exchange_finish},
    {"abort", l_exchange_abort},
    {"close", l_exchange_close},
    {NULL, NULL},
};

static const luaL_Reg exchange_metamethods[] = {
    {"__gc", l_exchange_gc},
    {"__close", l_exchange_close},
    {"__tostring", l_exchange_tostring},
    {NULL, NULL},
};

void sl_exchange_make_type(lua_State *L)
{
    sl_server_make_type(L, exchange_type, exchange_metamethods, exchange_methods);
    luaL_getmetatable(L, exchange_type);
    lua_getfield(L, -1, "__index");
    lua_pushvalue(L, -2);
    luaL_setfuncs(L, sl_stream_methods, 1);
    lua_pop(L, 2);
}

void sl_server_make_type(lua_State *L, const char *type, const luaL_Reg *metamethods,
                         const luaL_Reg *methods)
{
    luaL_newmetatable(L, type);
    lua_pushvalue(L, -1);
    luaL_setfuncs(L, metamethods, 1);
    lua_newtable(L);
    lua_pushvalue(L, -2);
    luaL_setfuncs(L, methods, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
