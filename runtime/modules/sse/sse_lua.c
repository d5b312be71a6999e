/* SPDX-License-Identifier: MIT */
/* Lua's view of the event stream reader: sluice.core.sse. */
#include "sse.h"

#include "../../core/core.h"

LUAMOD_API int luaopen_sluice_core_sse(lua_State *L);

static const char sse_type[] = "sluice.core.sse.reader";

/* User value: the bytes that are being read. */

static sl_sse_reader *check_sse_reader(lua_State *L)
{
    return luaL_checkudata(L, 1, sse_type);
}

/* reader(max_event, last_event_id or nil) */
static int l_sse_reader(lua_State *L)
{
    lua_Integer max_event = luaL_checkinteger(L, 1);
    luaL_argcheck(L, max_event >= 1, 1, "bytes of at least 1 expected");
    size_t size;
    const char *id = luaL_optlstring(L, 2, NULL, &size);
    sl_sse_reader *self = lua_newuserdatauv(L, sizeof *self, 1);
    void *user;
    lua_Alloc alloc = lua_getallocf(L, &user);
    sl_sse_init(self, (size_t)max_event, alloc, user);
    luaL_setmetatable(L, sse_type);
    if (id && !sl_sse_set_last_id(self, id, size))
        return luaL_error(L, "not enough memory");
    return 1;
}

static void sse_set_text_field(lua_State *L, const char *name, sl_sse_text text)
{
    lua_pushlstring(L, text.data, text.size);
    lua_setfield(L, -2, name);
}

static void push_sse_event(lua_State *L, const sl_sse_event *event, lua_Number now)
{
    lua_createtable(L, 0, 2 + (event->type.size > 0) + (event->id.data != NULL));
    sse_set_text_field(L, "data", event->data);
    lua_pushnumber(L, now);
    lua_setfield(L, -2, "at");
    if (event->type.size > 0)
        sse_set_text_field(L, "event", event->type);
    if (event->id.data)
        sse_set_text_field(L, "id", event->id);
    if (event->retry >= 0) {
        lua_pushinteger(L, (lua_Integer)event->retry);
        lua_setfield(L, -2, "retry");
    }
}

static sl_sse_status sse_take(lua_State *L, sl_sse_reader *self, lua_Number now)
{
    sl_sse_event event;
    sl_sse_status status = sl_sse_next(self, &event);
    if (status == SL_SSE_NO_MEMORY) {
        sl_sse_reset(self); /* it may point into bytes that are not kept */
        luaL_error(L, "not enough memory");
    }
    if (status == SL_SSE_EVENT)
        push_sse_event(L, &event, now);
    return status;
}

/* reader:feed(bytes, now) -> all events of them, whether it goes on; false: the next is too large
 */
static int l_sse_feed(lua_State *L)
{
    sl_sse_reader *self = check_sse_reader(L);
    size_t size;
    const char *bytes = luaL_checklstring(L, 2, &size);
    lua_Number now = luaL_checknumber(L, 3);
    lua_newtable(L);
    sl_sse_feed(self, bytes, size);
    sl_sse_status status;
    for (lua_Integer count = 1; (status = sse_take(L, self, now)) == SL_SSE_EVENT; count++)
        lua_rawseti(L, -2, count);
    lua_pushboolean(L, status == SL_SSE_NEEDS_MORE);
    return 2;
}

/* reader:take(bytes) -> the next event of these bytes, and whether there is more to take; nil: all
 * was read; false: too large, now and later. take(nil, at): of what is left of those given before,
 * with their stamp */
static int l_sse_take(lua_State *L)
{
    enum { BYTES = 2 };
    sl_sse_reader *self = check_sse_reader(L);
    size_t size;
    const char *bytes = luaL_optlstring(L, BYTES, NULL, &size);
    lua_Number now = bytes ? (lua_Number)sl_now_running(L) / 1e6 : luaL_checknumber(L, 3);
    lua_settop(L, BYTES);
    /* an error may have come between reading some bytes and keeping them */
    if (bytes)
        sl_sse_feed(self, bytes, size);
    else if (lua_getiuservalue(L, 1, 1) == LUA_TNIL)
        sl_sse_feed(self, "", 0);
    sl_sse_status status = sse_take(L, self, now);
    bool has_more = status == SL_SSE_EVENT && self->at < self->end;
    if (has_more && bytes) {
        lua_pushvalue(L, BYTES);
        lua_setiuservalue(L, 1, 1);
    } else if (!has_more) {
        sl_sse_feed(self, "", 0);
        lua_pushnil(L);
        lua_setiuservalue(L, 1, 1);
    }
    if (status == SL_SSE_NEEDS_MORE)
        lua_pushnil(L);
    else if (status == SL_SSE_TOO_LARGE)
        lua_pushboolean(L, 0);
    lua_pushboolean(L, has_more || status == SL_SSE_TOO_LARGE);
    return 2;
}

static int l_sse_reset(lua_State *L)
{
    sl_sse_reset(check_sse_reader(L));
    return 0;
}

/* reader:state() -> last event id or nil, retry in milliseconds or nil */
static int l_sse_state(lua_State *L)
{
    const sl_sse_reader *self = check_sse_reader(L);
    const sl_json_buffer *id = &self->last_id;
    if (self->has_id)
        lua_pushlstring(L, id->length ? id->data : "", id->length);
    else
        lua_pushnil(L);
    if (self->retry >= 0)
        lua_pushinteger(L, (lua_Integer)self->retry);
    else
        lua_pushnil(L);
    return 2;
}

static int l_sse_gc(lua_State *L)
{
    sl_sse_fini(check_sse_reader(L));
    return 0;
}

static const luaL_Reg sse_methods[] = {
    {"feed", l_sse_feed},   {"take", l_sse_take}, {"reset", l_sse_reset},
    {"state", l_sse_state}, {NULL, NULL},
};

static const luaL_Reg sse_functions[] = {
    {"reader", l_sse_reader},
    {NULL, NULL},
};

int luaopen_sluice_core_sse(lua_State *L)
{
    luaL_newmetatable(L, sse_type);
    lua_pushcfunction(L, l_sse_gc);
    lua_setfield(L, -2, "__gc");
    luaL_newlib(L, sse_methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, sse_functions);
    return 1;
}
