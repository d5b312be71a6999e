/* SPDX-License-Identifier: MIT */
/*
 * Lua values to their canonical form.
 *
 * No recursion: each open table is a frame. On Lua's stack a frame has the table and behind it
 *     of an array       the key, for lua_next
 *     of an object      its keys and values, in the order of lua_next
 *     of a large one    a table with them, and the userdata with the sorted keys
 * so that what a __tojson does to the table cannot take a key away.
 */
#include "walk.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    WALK_FRAMES = 24,
    /* members of an object that is sorted in place */
    WALK_SMALL = 32,
    /* keys of all small objects that are open */
    WALK_KEYS = 128,
};

enum walk_shape { WALK_ARRAY, WALK_INDEXED, WALK_OBJECT, WALK_LARGE };

struct walk_key {
    const char *text;
    size_t size;
    /* of a small object the stack slot of the value, of a large one its place in the table */
    int value;
};

struct walk_frame {
    enum walk_shape shape;
    /* the stack slot of the table */
    int table;
    /* members begun; all of them, but of an ARRAY */
    lua_Integer index, count;
    struct walk_key *keys;
};

struct walk {
    lua_State *L;
    sl_canonical *out;
    const void *array_metatable;
    int skip, frames_slot;
    struct walk_frame *frames;
    size_t depth, capacity, keys_used;
    struct walk_frame first[WALK_FRAMES];
    struct walk_key keys[WALK_KEYS];
};

enum walk_step {
    WALK_FAILED = -1,
    /* a whole value has been written and is off the stack */
    WALK_WRITTEN,
    /* the next value to write is on top of the stack */
    WALK_LOADED,
};

static enum walk_step walk_close(struct walk *w, char bracket)
{
    const struct walk_frame *frame = &w->frames[--w->depth];
    if (frame->shape == WALK_OBJECT)
        w->keys_used -= (size_t)frame->count;
    lua_settop(w->L, frame->table - 1);
    sl_canonical_mark(w->out, bracket);
    return WALK_WRITTEN;
}

/* ---- arrays ---- */

static enum walk_step walk_indexed(struct walk *w, struct walk_frame *frame)
{
    if (frame->index == frame->count)
        return walk_close(w, ']');
    lua_rawgeti(w->L, frame->table, ++frame->index);
    return WALK_LOADED;
}

/* Keys that come in another order: 1 to n all the same? */
static enum walk_step walk_unordered(struct walk *w, struct walk_frame *frame)
{
    lua_State *L = w->L;
    lua_Integer members = 0, largest = 0;
    lua_settop(L, frame->table);
    for (lua_pushnil(L); lua_next(L, frame->table); lua_pop(L, 1)) {
        lua_Integer key = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
        if (key < 1)
            return WALK_FAILED;
        members++;
        largest = key > largest ? key : largest;
    }
    if (members != largest)
        return WALK_FAILED;
    frame->shape = WALK_INDEXED;
    frame->count = members;
    return walk_indexed(w, frame);
}

/* The stack ends in table, key. */
static enum walk_step walk_array(struct walk *w, struct walk_frame *frame)
{
    if (!lua_next(w->L, frame->table))
        return walk_close(w, ']');
    if (!lua_isinteger(w->L, -2) || lua_tointeger(w->L, -2) != frame->index + 1)
        return walk_unordered(w, frame);
    frame->index++;
    return WALK_LOADED;
}

/* ---- objects ---- */

static int walk_compare(const struct walk_key *a, const struct walk_key *b)
{
    int order = memcmp(a->text, b->text, a->size < b->size ? a->size : b->size);
    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

static int walk_compare_any(const void *a, const void *b)
{
    return walk_compare(a, b);
}

static void walk_insert(struct walk_key *keys, lua_Integer count, struct walk_key key)
{
    lua_Integer at = count;
    for (; at > 0 && walk_compare(&key, &keys[at - 1]) < 0; at--)
        keys[at] = keys[at - 1];
    keys[at] = key;
}

/* Too many for the stack: table, key, value, ... so far become a table of theirs. */
static enum walk_step walk_large_object(struct walk *w, struct walk_frame *frame)
{
    lua_State *L = w->L;
    int members = frame->table + 1;
    lua_Integer count = 0;
    lua_settop(L, frame->table);
    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, frame->table);) {
        if (lua_type(L, -2) != LUA_TSTRING)
            return WALK_FAILED;
        lua_rawseti(L, members, ++count * 2);
        lua_pushvalue(L, -1);
        lua_rawseti(L, members, count * 2 - 1);
    }
    if (count > INT32_MAX / 2)
        return WALK_FAILED;
    frame->keys = lua_newuserdatauv(L, (size_t)count * sizeof *frame->keys, 0);
    for (lua_Integer i = 0; i < count; i++) {
        struct walk_key *key = &frame->keys[i];
        lua_rawgeti(L, members, i * 2 + 1);
        key->text = lua_tolstring(L, -1, &key->size);
        key->value = (int)(i * 2 + 2);
        lua_pop(L, 1);
    }
    qsort(frame->keys, (size_t)count, sizeof *frame->keys, walk_compare_any);
    frame->shape = WALK_LARGE;
    frame->count = count;
    return WALK_WRITTEN;
}

/* The stack ends in table, first key, first value. */
static enum walk_step walk_sort(struct walk *w, struct walk_frame *frame)
{
    lua_State *L = w->L;
    size_t room = WALK_KEYS - w->keys_used;
    frame->shape = WALK_OBJECT;
    frame->keys = w->keys + w->keys_used;
    do {
        struct walk_key key = {.value = lua_gettop(L)};
        if (lua_type(L, -2) != LUA_TSTRING)
            return WALK_FAILED;
        if (frame->count == WALK_SMALL || (size_t)frame->count == room) {
            frame->count = 0;
            return walk_large_object(w, frame);
        }
        key.text = lua_tolstring(L, -2, &key.size);
        walk_insert(frame->keys, frame->count++, key);
        lua_pushvalue(L, -2);
    } while (lua_next(L, frame->table));
    w->keys_used += (size_t)frame->count;
    return WALK_WRITTEN;
}

static bool walk_skips(struct walk *w, const struct walk_key *key)
{
    bool skips;
    if (w->skip == 0 || w->depth != 1)
        return false;
    lua_pushlstring(w->L, key->text, key->size);
    lua_rawget(w->L, w->skip);
    skips = lua_toboolean(w->L, -1);
    lua_pop(w->L, 1);
    return skips;
}

static enum walk_step walk_object(struct walk *w, struct walk_frame *frame)
{
    const struct walk_key *key;
    do {
        if (frame->index == frame->count)
            return walk_close(w, '}');
        key = &frame->keys[frame->index++];
    } while (walk_skips(w, key));
    sl_canonical_string(w->out, key->text, key->size);
    if (frame->shape == WALK_OBJECT)
        lua_pushvalue(w->L, key->value);
    else
        lua_rawgeti(w->L, frame->table + 1, key->value);
    return WALK_LOADED;
}

/* ---- tables ---- */

static enum walk_step walk_next(struct walk *w)
{
    struct walk_frame *frame = &w->frames[w->depth - 1];
    switch (frame->shape) {
    case WALK_ARRAY:
        return walk_array(w, frame);
    case WALK_INDEXED:
        return walk_indexed(w, frame);
    case WALK_OBJECT:
    case WALK_LARGE:
    default:
        return walk_object(w, frame);
    }
}

static void walk_more_frames(struct walk *w)
{
    size_t capacity = w->capacity * 2;
    struct walk_frame *frames = lua_newuserdatauv(w->L, capacity * sizeof *frames, 0);
    memcpy(frames, w->frames, w->depth * sizeof *frames);
    lua_replace(w->L, w->frames_slot);
    w->frames = frames;
    w->capacity = capacity;
}

static struct walk_frame *walk_open(struct walk *w)
{
    struct walk_frame *frame;
    if (w->depth == SL_DIGEST_DEPTH || !lua_checkstack(w->L, WALK_SMALL * 2 + 16))
        return NULL;
    if (w->depth == w->capacity)
        walk_more_frames(w);
    frame = &w->frames[w->depth++];
    *frame = (struct walk_frame){.table = lua_gettop(w->L)};
    return frame;
}

/* The table on top of the stack. */
static enum walk_step walk_table(struct walk *w, bool is_array)
{
    lua_State *L = w->L;
    struct walk_frame *frame = walk_open(w);
    if (frame == NULL)
        return WALK_FAILED;
    lua_pushnil(L);
    if (!lua_next(L, frame->table)) {
        sl_canonical_mark(w->out, is_array ? '[' : '{');
        return walk_close(w, is_array ? ']' : '}');
    }
    if (!is_array && lua_type(L, -2) != LUA_TNUMBER) {
        sl_canonical_mark(w->out, '{');
        return walk_sort(w, frame) < 0 ? WALK_FAILED : walk_object(w, frame);
    }
    sl_canonical_mark(w->out, '[');
    lua_pop(L, 2);
    lua_pushnil(L);
    return walk_array(w, frame);
}

/* ---- values ---- */

/* The metafield of the value on top, by raw access, as a new top; false and nothing if nil. */
static bool walk_metafield(lua_State *L, const char *name)
{
    if (!lua_getmetatable(L, -1))
        return false;
    lua_pushstring(L, name);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (!lua_isnil(L, -1))
        return true;
    lua_pop(L, 1);
    return false;
}

static enum walk_step walk_value(struct walk *w, bool may_convert);

/* A value with a metatable, which decides what it is. */
static enum walk_step walk_special(struct walk *w, bool may_convert)
{
    lua_State *L = w->L;
    if (!lua_checkstack(L, 8))
        return WALK_FAILED;
    if (may_convert && walk_metafield(L, "__tojson")) {
        lua_insert(L, -2);
        lua_call(L, 1, 1);
        return walk_value(w, false);
    }
    if (lua_type(L, -1) != LUA_TTABLE || walk_metafield(L, "__name"))
        return WALK_FAILED;
    return walk_table(w, false);
}

static enum walk_step walk_any_table(struct walk *w, bool may_convert)
{
    bool is_array;
    if (!lua_getmetatable(w->L, -1))
        return walk_table(w, false);
    is_array = lua_topointer(w->L, -1) == w->array_metatable;
    lua_pop(w->L, 1);
    return is_array ? walk_table(w, true) : walk_special(w, may_convert);
}

static enum walk_step walk_mark(struct walk *w, char mark)
{
    sl_canonical_mark(w->out, mark);
    lua_pop(w->L, 1);
    return WALK_WRITTEN;
}

static enum walk_step walk_number(struct walk *w)
{
    lua_Number value;
    if (lua_isinteger(w->L, -1)) {
        sl_canonical_integer(w->out, lua_tointeger(w->L, -1));
    } else {
        value = lua_tonumber(w->L, -1);
        if (!isfinite(value))
            return WALK_FAILED;
        sl_canonical_number(w->out, value);
    }
    lua_pop(w->L, 1);
    return WALK_WRITTEN;
}

/* The value on top of the stack. `may_convert`: it has not come out of a __tojson. */
static enum walk_step walk_value(struct walk *w, bool may_convert)
{
    const char *text;
    size_t size;
    switch (lua_type(w->L, -1)) {
    case LUA_TSTRING:
        text = lua_tolstring(w->L, -1, &size);
        sl_canonical_string(w->out, text, size);
        lua_pop(w->L, 1);
        return WALK_WRITTEN;
    case LUA_TNUMBER:
        return walk_number(w);
    case LUA_TTABLE:
        return walk_any_table(w, may_convert);
    case LUA_TBOOLEAN:
        return walk_mark(w, lua_toboolean(w->L, -1) ? 't' : 'f');
    case LUA_TNIL:
        return walk_mark(w, 'n');
    case LUA_TLIGHTUSERDATA:
        return lua_touserdata(w->L, -1) == NULL ? walk_mark(w, 'n') : WALK_FAILED;
    default:
        return walk_special(w, may_convert);
    }
}

bool sl_digest_walk(lua_State *L, sl_canonical *out, const void *array_metatable, int skip)
{
    struct walk w;
    enum walk_step step;
    w.L = L;
    w.out = out;
    w.array_metatable = array_metatable;
    w.skip = skip;
    w.frames = w.first;
    w.capacity = WALK_FRAMES;
    w.depth = w.keys_used = 0;
    luaL_checkstack(L, 8, "digest");
    lua_pushnil(L);
    lua_insert(L, -2);
    w.frames_slot = lua_gettop(L) - 1;
    do {
        step = walk_value(&w, true);
        while (step == WALK_WRITTEN && w.depth > 0)
            step = walk_next(&w);
    } while (step == WALK_LOADED);
    if (step == WALK_WRITTEN)
        lua_pop(L, 1);
    return step == WALK_WRITTEN;
}
