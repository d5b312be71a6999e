/* SPDX-License-Identifier: MIT */
/* A span as the JSON that OTLP/HTTP takes, by the names of opentelemetry.proto. */
#include "../json/engine.h"
#include "span.h"

#include <math.h>

/** Arguments of json(), and the slot of the memory that a long text needs. */
enum { JSON_SPAN = 1, JSON_REST_OF, JSON_VALUE_OF, JSON_MEMORY };

/** A text that grows: first here, then in a userdata, so that an error leaks nothing. */
typedef struct span_text {
    sl_json_buffer buffer;
    lua_State *L;
    char first[4096];
} span_text;

static bool span_text_grow(sl_json_buffer *buffer, size_t capacity)
{
    lua_State *L = ((span_text *)(void *)buffer)->L;
    char *bytes = lua_newuserdatauv(L, capacity, 0);
    memcpy(bytes, buffer->data, buffer->length);
    lua_replace(L, JSON_MEMORY);
    buffer->data = bytes;
    buffer->capacity = capacity;
    return true;
}

/** Room in the buffer; it grows or raises. */
static char *span_room(sl_json_buffer *out, size_t size)
{
    return sl_json_reserve(out, size);
}

static void span_add(sl_json_buffer *out, const char *text, size_t length)
{
    memcpy(span_room(out, length), text, length);
    out->length += length;
}

/** Appends a text that stands in the program. */
#define SPAN_ADD(out, literal) span_add(out, literal, sizeof(literal) - 1)

/** Appends the string at the top with its quotes, and pops it. */
static void span_add_string(lua_State *L, sl_json_buffer *out)
{
    size_t length;
    const char *text = lua_tolstring(L, -1, &length);
    if (sl_json_write_string(out, text ? text : "", length, false) == SL_JSON_NO_MEMORY)
        luaL_error(L, "not enough memory");
    lua_pop(L, 1);
}

static void span_add_integer(sl_json_buffer *out, lua_Integer value)
{
    char *room = span_room(out, SL_JSON_NUMBER_SIZE);
    out->length = (size_t)(sl_json_write_integer(room, value) - out->data);
}

static void span_add_double(sl_json_buffer *out, double value)
{
    char *room = span_room(out, SL_JSON_NUMBER_SIZE);
    out->length = (size_t)(sl_json_write_double(room, value) - out->data);
}

static void span_add_id(sl_json_buffer *out, uint64_t id)
{
    sl_span_write_id(span_room(out, SPAN_DIGITS), id);
    out->length += SPAN_DIGITS;
}

/** Nanoseconds since 1970. */
static void span_add_moment(sl_json_buffer *out, double seconds)
{
    double nanoseconds = floor(seconds * 1e9);
    span_add_integer(out, nanoseconds > 0 && nanoseconds < 9e18 ? (lua_Integer)nanoseconds : 0);
}

/** Appends what a function among the arguments makes of the value at the top, and pops that. */
static void span_add_made(lua_State *L, sl_json_buffer *out, int function)
{
    size_t length;
    lua_pushvalue(L, function);
    lua_insert(L, -2);
    lua_call(L, 1, 1);
    const char *text = luaL_checklstring(L, -1, &length);
    span_add(out, text, length);
    lua_pop(L, 1);
}

/** Appends the array of texts at the top, and pops it; false, and nothing of this, for any other.
 */
static bool span_add_texts(lua_State *L, sl_json_buffer *out)
{
    lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
    if (lua_getmetatable(L, -1)) {
        lua_pop(L, 1);
        return false;
    }
    for (lua_Integer i = 1; i <= count; i++) {
        bool is_text = lua_rawgeti(L, -1, i) == LUA_TSTRING;
        lua_pop(L, 1);
        if (!is_text)
            return false;
    }
    SPAN_ADD(out, "{\"arrayValue\":{\"values\":[");
    for (lua_Integer i = 1; i <= count; i++) {
        if (i > 1)
            SPAN_ADD(out, ",");
        SPAN_ADD(out, "{\"stringValue\":");
        lua_rawgeti(L, -1, i);
        span_add_string(L, out);
        SPAN_ADD(out, "}");
    }
    SPAN_ADD(out, "]}}");
    lua_pop(L, 1);
    return true;
}

/** Appends the value at the top, and pops it. */
static void span_add_value(lua_State *L, sl_json_buffer *out)
{
    if (lua_type(L, -1) == LUA_TSTRING) {
        SPAN_ADD(out, "{\"stringValue\":");
        span_add_string(L, out);
        SPAN_ADD(out, "}");
    } else if (lua_isinteger(L, -1)) {
        SPAN_ADD(out, "{\"intValue\":\"");
        span_add_integer(out, lua_tointeger(L, -1));
        lua_pop(L, 1);
        SPAN_ADD(out, "\"}");
    } else if (lua_type(L, -1) == LUA_TNUMBER && isfinite(lua_tonumber(L, -1))) {
        SPAN_ADD(out, "{\"doubleValue\":");
        span_add_double(out, lua_tonumber(L, -1));
        lua_pop(L, 1);
        SPAN_ADD(out, "}");
    } else if (lua_type(L, -1) != LUA_TTABLE || !span_add_texts(L, out)) {
        span_add_made(L, out, JSON_VALUE_OF);
    }
}

/** Appends the members of the array of name, value, name, value at the top; a nil is left out. */
static void span_add_attributes(lua_State *L, sl_json_buffer *out)
{
    int attributes = lua_gettop(L);
    lua_getfield(L, attributes, "n");
    lua_Integer count = lua_tointeger(L, -1);
    bool is_first = true;
    for (lua_Integer i = 1; i < count; i += 2) {
        if (lua_rawgeti(L, attributes, i + 1) != LUA_TNIL) {
            if (lua_rawgeti(L, attributes, i) != LUA_TSTRING)
                luaL_error(L, "the name of an attribute must be a string");
            if (is_first)
                SPAN_ADD(out, "{\"key\":");
            else
                SPAN_ADD(out, ",{\"key\":");
            is_first = false;
            span_add_string(L, out);
            SPAN_ADD(out, ",\"value\":");
            span_add_value(L, out);
            SPAN_ADD(out, "}");
        } else {
            lua_pop(L, 1);
        }
    }
    lua_settop(L, attributes);
}

static void span_add_head(lua_State *L, sl_json_buffer *out, const sl_trace_span *self)
{
    SPAN_ADD(out, "{\"traceId\":\"");
    span_add_id(out, self->trace[0]);
    span_add_id(out, self->trace[1]);
    SPAN_ADD(out, "\",\"spanId\":\"");
    span_add_id(out, self->id);
    SPAN_ADD(out, "\",\"parentSpanId\":\"");
    if (self->parent)
        span_add_id(out, self->parent);
    SPAN_ADD(out, "\",\"name\":");
    lua_getiuservalue(L, JSON_SPAN, SPAN_NAME);
    span_add_string(L, out);
    SPAN_ADD(out, ",\"kind\":");
    span_add_integer(out, self->kind);
}

static void span_add_times(lua_State *L, sl_json_buffer *out, const sl_trace_span *self)
{
    lua_getiuservalue(L, JSON_SPAN, SPAN_ROOT);
    const sl_trace_span *root = lua_touserdata(L, -1);
    double from = root->started_at + (self->started - root->started);
    lua_pop(L, 1);
    SPAN_ADD(out, ",\"startTimeUnixNano\":\"");
    span_add_moment(out, from);
    SPAN_ADD(out, "\",\"endTimeUnixNano\":\"");
    span_add_moment(out, from + (self->duration > 0 ? self->duration : 0));
    SPAN_ADD(out, "\"");
}

/** What few spans have. */
static void span_add_rest(lua_State *L, sl_json_buffer *out)
{
    bool has_rest = lua_getiuservalue(L, JSON_SPAN, SPAN_REST) != LUA_TNIL;
    has_rest = lua_getiuservalue(L, JSON_SPAN, SPAN_STATE) != LUA_TNIL || has_rest;
    lua_pop(L, 2);
    if (!has_rest)
        return;
    lua_pushvalue(L, JSON_SPAN);
    span_add_made(L, out, JSON_REST_OF);
}

int sl_span_json(lua_State *L, const sl_trace_span *self)
{
    span_text text = {.buffer = {.grow = span_text_grow}, .L = L};
    luaL_checktype(L, JSON_REST_OF, LUA_TFUNCTION);
    luaL_checktype(L, JSON_VALUE_OF, LUA_TFUNCTION);
    lua_settop(L, JSON_VALUE_OF);
    lua_pushnil(L);
    sl_json_buffer *out = &text.buffer;
    out->data = text.first;
    out->capacity = sizeof text.first;
    span_add_head(L, out, self);
    span_add_times(L, out, self);
    SPAN_ADD(out, ",\"attributes\":[");
    if (lua_getiuservalue(L, JSON_SPAN, SPAN_ATTRIBUTES) == LUA_TTABLE)
        span_add_attributes(L, out);
    SPAN_ADD(out, "]");
    span_add_rest(L, out);
    SPAN_ADD(out, "}");
    lua_pushlstring(L, out->data, out->length);
    return 1;
}
