/* SPDX-License-Identifier: MIT */
/* URLs for Lua. */
#include "url_lua.h"

#include "url.h"

#include <string.h>

int sl_http_join_lua(lua_State *L)
{
    const char *base = luaL_checkstring(L, 1), *reference = luaL_checkstring(L, 2);
    size_t room = sl_http_join_room(base, reference);
    luaL_Buffer buffer;
    char *out = luaL_buffinitsize(L, &buffer, room);
    sl_http_join join = {0};
    const char *reason = sl_http_join_urls(&join, base, reference, out, room);
    if (reason) {
        lua_pushnil(L);
        lua_pushstring(L, reason);
        return 2;
    }
    luaL_pushresultsize(&buffer, strlen(out));
    lua_pushboolean(L, join.same_origin);
    lua_pushboolean(L, join.downgrade);
    return 3;
}
