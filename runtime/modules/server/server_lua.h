/* SPDX-License-Identifier: MIT */
/* What the two files of the binding share: the handle of an exchange. */
#ifndef SL_SERVER_LUA_H
#define SL_SERVER_LUA_H

#include "server.h"

/** An exchange, as Lua holds it; NULL inside when closed. */
typedef struct sl_exchange_handle {
    sl_exchange *x;
    sl_core *core;
    sl_waitlist readers, writers;
    /** The task that is cancelled when the client leaves. */
    sl_task *owner;
    /** It may outlive the core, in a state of the host's. */
    sl_close_hook hook;
} sl_exchange_handle;

/** Pushes a closed handle. */
sl_exchange_handle *sl_exchange_handle_new(lua_State *L, sl_core *core);
/** Makes it the holder of the exchange. */
void sl_exchange_handle_open(sl_exchange_handle *handle, sl_exchange *x);

/* The events of an exchange that has a handle: store and wake. */
void sl_exchange_handle_on_body(sl_exchange *x);
void sl_exchange_handle_on_room(sl_exchange *x);
void sl_exchange_handle_on_gone(sl_exchange *x);

void sl_exchange_make_type(lua_State *L);
/** The handle at 1, open; raises else. For methods. */
sl_exchange_handle *sl_exchange_handle_check(lua_State *L);
/** Waits until the client has taken more; its exchange may be closed then. */
int sl_exchange_handle_wait(lua_State *L, sl_exchange_handle *handle, lua_KContext ctx,
                            lua_KFunction k);
/**
 * Writes the text at `index` from `done` on, in steps that fit under the high water mark. The task
 * waits where the client is slow (the context is then what is done); -1 when all is written.
 */
int sl_exchange_handle_write(lua_State *L, sl_exchange_handle *handle, int index, size_t done,
                             lua_KFunction k);

/** Methods of an exchange that are about streams; see stream_lua.c. */
extern const luaL_Reg sl_stream_methods[];

/** As luaL_checkudata, for a function of sl_server_make_type: its upvalue is the metatable. */
static inline void *sl_server_check(lua_State *L, const char *type)
{
    void *object = lua_touserdata(L, 1);
    if (object && lua_getmetatable(L, 1)) {
        bool same = lua_rawequal(L, -1, lua_upvalueindex(1));
        lua_pop(L, 1);
        if (same)
            return object;
    }
    return luaL_checkudata(L, 1, type);
}

/** Registers a type with its metamethods, and its methods in a table of their own. */
void sl_server_make_type(lua_State *L, const char *type, const luaL_Reg *metamethods,
                         const luaL_Reg *methods);

#endif
