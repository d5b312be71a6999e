/* SPDX-License-Identifier: MIT */
/* Makes the cache of keys. */
#include "names.h"

_Static_assert(SL_JSON_NAMES == 1 << (64 - 57), "the hash gives a place of the cache");

void sl_json_names_push(lua_State *L)
{
    sl_json_name *names = lua_newuserdatauv(L, SL_JSON_NAMES * sizeof *names, 0);
    memset(names, 0, SL_JSON_NAMES * sizeof *names); /* length 0: an empty key is never cached */
    lua_createtable(L, SL_JSON_NAMES, 0);
}
