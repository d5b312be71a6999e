/* SPDX-License-Identifier: MIT */
/* What kind of table this is, and its keys in byte order. */
#include "encode.h"

#include <stdlib.h>

bool sl_json_is_sequence(lua_State *L, int table, lua_Integer *count)
{
    lua_Integer members = 0, largest = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        lua_Integer key;
        if (!lua_isinteger(L, -2) || (key = lua_tointeger(L, -2)) < 1) {
            lua_pop(L, 2);
            return false;
        }
        members++;
        largest = key > largest ? key : largest;
    }
    *count = members;
    return members == largest; /* different integers from 1 up: no hole among them */
}

static int json_compare_keys(const void *left, const void *right)
{
    const sl_json_key *a = left, *b = right;
    int order = memcmp(a->text, b->text, a->length < b->length ? a->length : b->length);
    if (order != 0)
        return order;
    return (a->length > b->length) - (a->length < b->length);
}

/* The members of the table; -1 when a key is no string. */
static lua_Integer json_count_members(lua_State *L, int table)
{
    lua_Integer count = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING) {
            lua_pop(L, 2);
            return -1;
        }
        count++;
    }
    return count;
}

sl_json_step sl_json_sort_keys(sl_json_encoder *e)
{
    lua_State *L = e->L;
    sl_json_frame *frame = &e->frames[e->depth - 1];
    int table = sl_json_table_slot(e, e->depth);
    lua_Integer count = json_count_members(L, table), i = 0;
    sl_json_key *keys;
    if (count < 0)
        return sl_json_shape_fault(e);
    keys = lua_newuserdatauv(L, (size_t)count * sizeof *keys, 1);
    lua_replace(L, table + 1);
    /* the userdata keeps the strings alive: a __tojson may take them out of the table */
    lua_createtable(L, (int)count, 0);
    for (lua_pushnil(L); i < count && lua_next(L, table); lua_pop(L, 1)) {
        keys[i].text = lua_tolstring(L, -2, &keys[i].length);
        lua_pushvalue(L, -2);
        lua_rawseti(L, table + 2, ++i);
    }
    lua_settop(L, table + 2);
    lua_setiuservalue(L, table + 1, 1);
    qsort(keys, (size_t)count, sizeof *keys, json_compare_keys);
    frame->shape = SL_JSON_SORTED;
    frame->keys = keys;
    frame->count = count;
    return SL_JSON_WRITTEN;
}
