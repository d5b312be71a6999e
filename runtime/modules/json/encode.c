/* SPDX-License-Identifier: MIT */
/*
 * Lua values to JSON text.
 *
 * No recursion: each open table is a frame, and two slots of Lua's stack. Only raw access; the one
 * metamethod that counts is __tojson.
 */
#include "encode.h"
#include "plain.h"

#include <lauxlib.h>
#include <math.h>

/* Bytes of a text that is tried as plain; beyond, starting again would cost too much. */
enum { JSON_SHORT = 64 };

static sl_json_step json_no_memory(sl_json_encoder *e)
{
    return sl_json_encode_fault(e, "not enough memory");
}

/* ---- scalars ---- */

static sl_json_step json_encode_number(sl_json_encoder *e)
{
    char *room = sl_json_reserve(e->out, SL_JSON_NUMBER_SIZE);
    if (room == NULL)
        return json_no_memory(e);
    if (lua_isinteger(e->L, -1)) {
        room = sl_json_write_integer(room, lua_tointeger(e->L, -1));
    } else {
        double value = lua_tonumber(e->L, -1);
        if (!isfinite(value))
            return sl_json_encode_fault(e, "%s cannot be encoded as JSON",
                                        isnan(value) ? "NaN" : "infinity");
        room = sl_json_write_double(room, value);
    }
    e->out->length = (size_t)(room - e->out->data);
    return SL_JSON_WRITTEN;
}

static sl_json_step json_encode_any_text(sl_json_encoder *e, const char *text, size_t length)
{
    switch (sl_json_write_string(e->out, text, length, e->strict_utf8)) {
    case SL_JSON_OK:
        return SL_JSON_WRITTEN;
    case SL_JSON_BAD_UTF8:
        return sl_json_encode_fault(e, "a string that is not valid UTF-8");
    case SL_JSON_NO_MEMORY:
    default:
        return json_no_memory(e);
    }
}

static inline sl_json_step json_encode_text(sl_json_encoder *e, int index)
{
    size_t length;
    const char *text = lua_tolstring(e->L, index, &length);
    char *room;
    if (length <= JSON_SHORT && (room = sl_json_reserve(e->out, JSON_SHORT + 2)) != NULL &&
        (room = sl_json_write_plain(room, text, length)) != NULL) {
        e->out->length = (size_t)(room - e->out->data);
        return SL_JSON_WRITTEN;
    }
    return json_encode_any_text(e, text, length);
}

static sl_json_step json_encode_word(sl_json_encoder *e, const char *word, size_t length)
{
    char *room = sl_json_reserve(e->out, length);
    if (room == NULL)
        return json_no_memory(e);
    memcpy(room, word, length);
    e->out->length += length;
    return SL_JSON_WRITTEN;
}

/* ---- members ---- */

static bool json_encode_newline(sl_json_encoder *e)
{
    size_t spaces = e->depth * 2;
    char *room = sl_json_reserve(e->out, spaces + 1);
    if (room == NULL)
        return false;
    *room = '\n';
    memset(room + 1, ' ', spaces);
    e->out->length += spaces + 1;
    return true;
}

/* What stands before a member: the bracket or a comma, and in the pretty form a new line. */
static inline bool json_begin_member(sl_json_encoder *e, sl_json_frame *frame, char bracket)
{
    char *room = sl_json_reserve(e->out, 1);
    if (room == NULL)
        return false;
    *room = frame->index == 0 ? bracket : ',';
    e->out->length++;
    frame->index++;
    return !e->pretty || json_encode_newline(e);
}

static sl_json_step json_close_table(sl_json_encoder *e, char bracket)
{
    char *room;
    lua_settop(e->L, sl_json_table_slot(e, e->depth) - 1);
    e->depth--;
    if (e->pretty && !json_encode_newline(e))
        return json_no_memory(e);
    room = sl_json_reserve(e->out, 1);
    if (room == NULL)
        return json_no_memory(e);
    *room = bracket;
    e->out->length++;
    return SL_JSON_WRITTEN;
}

static sl_json_step json_element(sl_json_encoder *e, sl_json_frame *frame)
{
    return json_begin_member(e, frame, '[') ? SL_JSON_LOADED : json_no_memory(e);
}

/* From an array whose keys come in order to one that is read by index. */
static sl_json_step json_next_indexed(sl_json_encoder *e, sl_json_frame *frame)
{
    if (frame->index == frame->count)
        return json_close_table(e, ']');
    lua_rawgeti(e->L, sl_json_table_slot(e, e->depth), frame->index + 1);
    return json_element(e, frame);
}

static sl_json_step json_to_indexed(sl_json_encoder *e, sl_json_frame *frame)
{
    if (!sl_json_is_sequence(e->L, sl_json_table_slot(e, e->depth), &frame->count))
        return sl_json_shape_fault(e);
    lua_pop(e->L, 1); /* the value; the key stays in its slot, unused */
    frame->shape = SL_JSON_INDEXED;
    return json_next_indexed(e, frame);
}

/* The stack ends in table, key, value. */
static inline sl_json_step json_array_member(sl_json_encoder *e, sl_json_frame *frame)
{
    lua_State *L = e->L;
    if (lua_isinteger(L, -2) && lua_tointeger(L, -2) == frame->index + 1)
        return json_element(e, frame);
    return json_to_indexed(e, frame);
}

static sl_json_step json_encode_key_slowly(sl_json_encoder *e, sl_json_frame *frame,
                                           const char *text, size_t length)
{
    if (!json_begin_member(e, frame, '{'))
        return json_no_memory(e);
    if (json_encode_any_text(e, text, length) < 0)
        return SL_JSON_FAILED;
    return e->pretty ? json_encode_word(e, ": ", 2) : json_encode_word(e, ":", 1);
}

/* The bracket or comma, the key, the colon; in the usual case with one look at the buffer. */
static inline sl_json_step json_encode_key(sl_json_encoder *e, sl_json_frame *frame,
                                           const char *text, size_t length)
{
    enum { AROUND = 4 }; /* a bracket, two quotes, a colon */
    char *room = NULL;
    if (length <= JSON_SHORT && !e->pretty)
        room = sl_json_reserve(e->out, JSON_SHORT + AROUND);
    if (room == NULL)
        return json_encode_key_slowly(e, frame, text, length);
    *room = frame->index == 0 ? '{' : ',';
    room = sl_json_write_plain(room + 1, text, length);
    if (room == NULL)
        return json_encode_key_slowly(e, frame, text, length);
    frame->index++;
    *room++ = ':';
    e->out->length = (size_t)(room - e->out->data);
    return SL_JSON_WRITTEN;
}

/* The stack ends in table, key, value. */
static inline sl_json_step json_object_member(sl_json_encoder *e, sl_json_frame *frame)
{
    size_t length;
    const char *text;
    if (lua_type(e->L, -2) != LUA_TSTRING)
        return sl_json_shape_fault(e);
    text = lua_tolstring(e->L, -2, &length);
    return json_encode_key(e, frame, text, length) < 0 ? SL_JSON_FAILED : SL_JSON_LOADED;
}

static sl_json_step json_next_sorted(sl_json_encoder *e, sl_json_frame *frame)
{
    const sl_json_key *key = &frame->keys[frame->index];
    if (frame->index == frame->count)
        return json_close_table(e, '}');
    if (json_encode_key(e, frame, key->text, key->length) < 0)
        return SL_JSON_FAILED;
    lua_pushlstring(e->L, key->text, key->length);
    lua_rawget(e->L, sl_json_table_slot(e, e->depth));
    return SL_JSON_LOADED;
}

/* The stack ends in the two slots of the innermost frame. */
static inline sl_json_step json_next_member(sl_json_encoder *e)
{
    sl_json_frame *frame = &e->frames[e->depth - 1];
    switch (frame->shape) {
    case SL_JSON_ARRAY:
        if (lua_next(e->L, -2))
            return json_array_member(e, frame);
        return json_close_table(e, ']');
    case SL_JSON_OBJECT:
        if (lua_next(e->L, -2))
            return json_object_member(e, frame);
        return json_close_table(e, '}');
    case SL_JSON_INDEXED:
        return json_next_indexed(e, frame);
    case SL_JSON_SORTED:
    default:
        return json_next_sorted(e, frame);
    }
}

/* ---- tables ---- */

static void json_more_encode_frames(sl_json_encoder *e)
{
    size_t capacity = e->capacity * 2;
    sl_json_frame *frames = lua_newuserdatauv(e->L, capacity * sizeof *frames, 0);
    memcpy(frames, e->frames, e->capacity * sizeof *frames);
    lua_replace(e->L, e->frames_slot);
    e->frames = frames;
    e->capacity = capacity;
}

/* Longer cycles end at the depth limit; nobody should wait for that with the usual short ones. */
static bool json_is_open(const sl_json_encoder *e, const void *table)
{
    enum { NEAREST = 64 };
    size_t last = e->depth > NEAREST ? e->depth - NEAREST : 0;
    for (size_t i = e->depth; i > last; i--) {
        if (e->frames[i - 1].table == table)
            return true;
    }
    return false;
}

/* The table is on top of the stack. */
static sl_json_step json_open_frame(sl_json_encoder *e)
{
    const void *table = lua_topointer(e->L, -1);
    if (json_is_open(e, table))
        return sl_json_encode_fault(e, "a table that contains itself cannot be encoded as JSON");
    if (e->depth >= e->max_depth)
        return sl_json_encode_fault(e, "tables nested more than %d levels deep", (int)e->max_depth);
    if (!lua_checkstack(e->L, 16))
        return sl_json_encode_fault(e, "tables nested too deeply for Lua's stack");
    if (e->depth == e->capacity)
        json_more_encode_frames(e);
    e->frames[e->depth++] = (sl_json_frame){.table = table};
    return SL_JSON_WRITTEN;
}

static sl_json_step json_open_table(sl_json_encoder *e, bool is_array)
{
    sl_json_frame *frame;
    if (json_open_frame(e) < 0)
        return SL_JSON_FAILED;
    frame = &e->frames[e->depth - 1];
    lua_pushnil(e->L);
    if (!lua_next(e->L, -2)) {
        e->depth--;
        lua_pop(e->L, 1);
        return json_encode_word(e, is_array ? "[]" : "{}", 2);
    }
    if (is_array || lua_type(e->L, -2) == LUA_TNUMBER) {
        frame->shape = SL_JSON_ARRAY;
        return json_array_member(e, frame);
    }
    frame->shape = SL_JSON_OBJECT;
    if (!e->sorted)
        return json_object_member(e, frame);
    lua_pop(e->L, 1);
    return sl_json_sort_keys(e) < 0 ? SL_JSON_FAILED : json_next_sorted(e, frame);
}

/* ---- values ---- */

/* The metafield of the value on top, by raw access, as a new top; false and nothing if nil. */
static bool json_metafield(lua_State *L, const char *name)
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

static sl_json_step json_encode_plain(sl_json_encoder *e, bool may_convert);

/* A value with a metatable, which decides what it is. */
static sl_json_step json_encode_special(sl_json_encoder *e, bool may_convert)
{
    lua_State *L = e->L;
    if (!lua_checkstack(L, 8))
        return sl_json_encode_fault(e, "tables nested too deeply for Lua's stack");
    if (may_convert && json_metafield(L, "__tojson")) {
        lua_insert(L, -2);
        lua_call(L, 1, 1);
        return json_encode_plain(e, false);
    }
    if (lua_type(L, -1) != LUA_TTABLE)
        return sl_json_type_fault(e);
    if (json_metafield(L, "__name")) {
        lua_pop(L, 1);
        return sl_json_type_fault(e);
    }
    return json_open_table(e, false);
}

static sl_json_step json_encode_table(sl_json_encoder *e, bool may_convert)
{
    if (lua_getmetatable(e->L, -1)) {
        bool is_array = lua_topointer(e->L, -1) == e->array_metatable;
        lua_pop(e->L, 1);
        return is_array ? json_open_table(e, true) : json_encode_special(e, may_convert);
    }
    return json_open_table(e, false);
}

/* The value on top of the stack. `may_convert`: it has not come out of a __tojson. */
static sl_json_step json_encode_plain(sl_json_encoder *e, bool may_convert)
{
    lua_State *L = e->L;
    sl_json_step step;
    switch (lua_type(L, -1)) {
    case LUA_TSTRING:
        step = json_encode_text(e, -1);
        break;
    case LUA_TNUMBER:
        step = json_encode_number(e);
        break;
    case LUA_TTABLE:
        return json_encode_table(e, may_convert);
    case LUA_TBOOLEAN:
        step =
            lua_toboolean(L, -1) ? json_encode_word(e, "true", 4) : json_encode_word(e, "false", 5);
        break;
    case LUA_TNIL:
        step = json_encode_word(e, "null", 4);
        break;
    case LUA_TLIGHTUSERDATA:
        step =
            lua_touserdata(L, -1) == NULL ? json_encode_word(e, "null", 4) : sl_json_type_fault(e);
        break;
    default:
        return json_encode_special(e, may_convert);
    }
    if (step == SL_JSON_WRITTEN)
        lua_pop(L, 1);
    return step;
}

sl_json_step sl_json_encoder_run(sl_json_encoder *e)
{
    sl_json_step step;
    do {
        step = json_encode_plain(e, true);
        while (step == SL_JSON_WRITTEN && e->depth > 0)
            step = json_next_member(e);
    } while (step == SL_JSON_LOADED);
    return step;
}
