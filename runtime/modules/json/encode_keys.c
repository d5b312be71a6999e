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

/* So many keys are sorted as they are found; nearly every object has fewer. */
enum { JSON_FEW_KEYS = 16 };

static void json_insert_key(sl_json_key *keys, lua_Integer count, sl_json_key key)
{
    while (count > 0 && json_compare_keys(&keys[count - 1], &key) > 0) {
        keys[count] = keys[count - 1];
        count--;
    }
    keys[count] = key;
}

/*
 * The members of the table, the first of them sorted into `few`; -1 when a key is no string.
 * `is_flat`: texts, numbers and booleans alone, which call nothing while they are written.
 */
static lua_Integer json_look_at_members(lua_State *L, int table, sl_json_key *few, bool *is_flat)
{
    lua_Integer count = 0;
    *is_flat = true;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        sl_json_key key;
        int kind = lua_type(L, -1);
        if (lua_type(L, -2) != LUA_TSTRING) {
            lua_pop(L, 2);
            return -1;
        }
        key.text = lua_tolstring(L, -2, &key.length);
        if (count < JSON_FEW_KEYS)
            json_insert_key(few, count, key);
        count++;
        *is_flat &= kind == LUA_TSTRING || kind == LUA_TNUMBER || kind == LUA_TBOOLEAN;
    }
    return count;
}

static void json_collect_keys(lua_State *L, int table, sl_json_key *keys)
{
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1), keys++)
        keys->text = lua_tolstring(L, -2, &keys->length);
}

/* The userdata keeps the strings of the keys alive: a __tojson may take them out of the table. */
static void json_hold_keys(lua_State *L, int table, lua_Integer count)
{
    lua_Integer i = 0;
    lua_createtable(L, (int)count, 0);
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_rawseti(L, table + 2, ++i);
    }
    lua_setiuservalue(L, table + 1, 1);
}

sl_json_step sl_json_sort_keys(sl_json_encoder *e)
{
    lua_State *L = e->L;
    sl_json_frame *frame = &e->frames[e->depth - 1];
    sl_json_key few[JSON_FEW_KEYS], *keys;
    int table = sl_json_table_slot(e, e->depth);
    bool is_flat;
    lua_Integer count = json_look_at_members(L, table, few, &is_flat);
    if (count < 0)
        return sl_json_shape_fault(e);
    keys = lua_newuserdatauv(L, (size_t)count * sizeof *keys, 1);
    lua_replace(L, table + 1);
    if (count <= JSON_FEW_KEYS) {
        memcpy(keys, few, (size_t)count * sizeof *keys);
    } else {
        json_collect_keys(L, table, keys);
        qsort(keys, (size_t)count, sizeof *keys, json_compare_keys);
    }
    if (!is_flat)
        json_hold_keys(L, table, count);
    frame->shape = SL_JSON_SORTED;
    frame->keys = keys;
    frame->count = count;
    return SL_JSON_WRITTEN;
}
