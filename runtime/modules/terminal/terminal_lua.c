/* SPDX-License-Identifier: MIT */
/* Lua's view of the terminal engine: sluice.core.terminal. */
#include "terminal.h"

#include "../../core/core.h"

#include <limits.h>
#include <string.h>

LUAMOD_API int luaopen_sluice_core_terminal(lua_State *L);

static int check_descriptor(lua_State *L, int index)
{
    lua_Integer fd = luaL_checkinteger(L, index);
    luaL_argcheck(L, fd >= 0 && fd <= INT_MAX, index, "a file descriptor expected");
    return (int)fd;
}

/* isatty(fd) -> boolean */
static int l_terminal_isatty(lua_State *L)
{
    lua_pushboolean(L, sl_terminal_is_one(check_descriptor(L, 1)));
    return 1;
}

/* size(fd) -> columns, rows | nil */
static int l_terminal_size(lua_State *L)
{
    int columns;
    int rows;
    if (!sl_terminal_size(check_descriptor(L, 1), &columns, &rows)) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, columns);
    lua_pushinteger(L, rows);
    return 2;
}

/* write(fd, bytes) -> true | nil, message, errno */
static int l_terminal_write(lua_State *L)
{
    sl_require_capability(L, SL_CAN_WRITE_FILES, "writing to a terminal");
    int fd = check_descriptor(L, 1);
    size_t length;
    const char *bytes = luaL_checklstring(L, 2, &length);
    int failure = sl_terminal_write(fd, bytes, length);
    if (failure != 0) {
        lua_pushnil(L);
        lua_pushstring(L, strerror(failure));
        lua_pushinteger(L, failure);
        return 3;
    }
    lua_pushboolean(L, true);
    return 1;
}

static const luaL_Reg terminal_functions[] = {
    {"isatty", l_terminal_isatty},
    {"size", l_terminal_size},
    {"write", l_terminal_write},
    {NULL, NULL},
};

int luaopen_sluice_core_terminal(lua_State *L)
{
    luaL_newlib(L, terminal_functions);
    return 1;
}
