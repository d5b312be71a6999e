/* SPDX-License-Identifier: MIT */
/* Lua's view of a stream: the loop that asks for its items and sends them, at the client's pace. */
#include "server_lua.h"

#include <string.h>

/** The arguments of send_all, and the item above them. */
enum { ALL_NEXT = 2, ALL_IS_DATA, ALL_FRAME, ALL_TRACE, ALL_ITEM };

/** What comes next; each may be where it went on after a wait. */
typedef enum send_step {
    /** Asks for an item. */
    SEND_ASK,
    /** It has come, or the end, or a failure. */
    SEND_ITEM,
    /** It was an event; its text has come. */
    SEND_FRAMED,
    /** Writes the text. */
    SEND_TEXT,
    /** All is written: flushes, and waits for the client. */
    SEND_WRITTEN,
    /** Nothing: what is on top is what was raised, or nothing is. */
    SEND_RAISED,
    SEND_DONE,
} send_step;

static int k_send_all(lua_State *L, int status, lua_KContext step);
static int k_send_text(lua_State *L, int status, lua_KContext done);

/** The data of an item that is one line of data and nothing else; NULL otherwise. */
static const char *plain_data(lua_State *L, size_t *length)
{
    static const char *const others[] = {"event", "id", "retry"};
    if (lua_istable(L, ALL_ITEM)) {
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            lua_pushstring(L, others[i]);
            if (lua_rawget(L, ALL_ITEM) != LUA_TNIL)
                return NULL;
            lua_pop(L, 1);
        }
        lua_pushliteral(L, "data");
        lua_rawget(L, ALL_ITEM);
    }
    if (lua_type(L, -1) != LUA_TSTRING)
        return NULL;
    const char *data = lua_tolstring(L, -1, length);
    return memchr(data, '\n', *length) || memchr(data, '\r', *length) ? NULL : data;
}

static send_step after_call(lua_State *L, int status, send_step next)
{
    (void)L;
    return status == LUA_OK || status == LUA_YIELD ? next : SEND_RAISED;
}

static send_step send_ask(lua_State *L)
{
    lua_settop(L, ALL_TRACE);
    lua_pushvalue(L, ALL_NEXT);
    return after_call(L, lua_pcallk(L, 0, 2, ALL_TRACE, SEND_ITEM, k_send_all), SEND_ITEM);
}

static send_step send_item(lua_State *L, sl_exchange *x)
{
    size_t length;
    if (lua_isnil(L, ALL_ITEM)) {
        if (!lua_isnil(L, -1))
            return SEND_RAISED;
        sl_exchange_finish(x);
        return SEND_DONE;
    }
    lua_settop(L, ALL_ITEM);
    if (lua_type(L, ALL_ITEM) == LUA_TSTRING && !lua_toboolean(L, ALL_IS_DATA))
        return SEND_TEXT;
    const char *data = plain_data(L, &length);
    if (data) {
        sl_exchange_write_data(x, data, length);
        return SEND_WRITTEN;
    }
    lua_settop(L, ALL_ITEM);
    lua_pushvalue(L, ALL_FRAME);
    lua_insert(L, ALL_ITEM);
    return after_call(L, lua_pcallk(L, 1, 1, ALL_TRACE, SEND_FRAMED, k_send_all), SEND_FRAMED);
}

static int send_all(lua_State *L, send_step step, size_t done)
{
    sl_exchange_handle *handle = lua_touserdata(L, 1);
    while (handle->x) {
        int waits = -1;
        if (step == SEND_RAISED)
            return 1;
        if (step == SEND_DONE || sl_exchange_is_gone(handle->x))
            return 0;
        switch (step) {
        case SEND_ASK:
            step = send_ask(L);
            break;
        case SEND_ITEM:
            step = send_item(L, handle->x);
            break;
        case SEND_FRAMED:
        case SEND_TEXT:
            waits = sl_exchange_handle_write(L, handle, ALL_ITEM, done, k_send_text);
            step = SEND_WRITTEN;
            done = 0;
            break;
        default:
            (void)sl_exchange_flush_soon(handle->x);
            if (sl_exchange_is_full(handle->x))
                waits = sl_exchange_handle_wait(L, handle, SEND_WRITTEN, k_send_all);
            step = SEND_ASK;
        }
        if (waits >= 0)
            return waits;
    }
    return luaL_error(L, "the exchange is closed");
}

static int k_send_all(lua_State *L, int status, lua_KContext step)
{
    return send_all(L, after_call(L, status, (send_step)step), 0);
}

static int k_send_text(lua_State *L, int status, lua_KContext done)
{
    (void)status;
    return send_all(L, SEND_TEXT, (size_t)done);
}

/*
 * exchange:send_all(next, is_data, frame, trace) -> nothing, or what was raised or returned as err
 * Sends what next() gives until that is nil, and finishes. A text is sent as it is, or as the data
 * of an event where `is_data`; of anything else frame(item) makes the text. `trace` is their
 * message handler.
 */
static int l_exchange_send_all(lua_State *L)
{
    sl_exchange_handle_check(L);
    lua_settop(L, ALL_TRACE);
    return send_all(L, SEND_ASK, 0);
}

/* exchange:started() -> whether a head was sent, which nothing takes back */
static int l_exchange_started(lua_State *L)
{
    lua_pushboolean(L, sl_exchange_handle_check(L)->x->started);
    return 1;
}

/* exchange:cut(): ends a stream before its time; what was written still reaches the client */
static int l_exchange_cut(lua_State *L)
{
    sl_exchange_cut(sl_exchange_handle_check(L)->x);
    return 0;
}

const luaL_Reg sl_stream_methods[] = {
    {"send_all", l_exchange_send_all},
    {"started", l_exchange_started},
    {"cut", l_exchange_cut},
    {NULL, NULL},
};
