/* SPDX-License-Identifier: MIT */
/* The module sluice.core.otlp: writes a span as the JSON that OTLP/HTTP takes. */
#include "../../core/core.h"

#include <math.h>
#include <stdio.h>

LUAMOD_API int luaopen_sluice_core_otlp(lua_State *L);

/* Arguments of span(). */
enum {
    SPAN_TRACE = 1,
    SPAN_ID,
    SPAN_PARENT,
    SPAN_NAME,
    SPAN_KIND,
    SPAN_FROM,
    SPAN_TO,
    SPAN_ATTRIBUTES,
    SPAN_COUNT,
    SPAN_REST,
    SPAN_ENCODE,
    SPAN_VALUE,
    SPAN_ARGUMENTS = SPAN_VALUE,
};

/** Whether JSON takes the bytes as they are. */
static bool otlp_is_plain(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte < 0x20 || byte > 0x7E || byte == '"' || byte == '\\')
            return false;
    }
    return true;
}

/** Appends what the function among the arguments gives for the value at the top, and pops that. */
static void otlp_add_encoded(lua_State *L, luaL_Buffer *out, int function)
{
    lua_pushvalue(L, function);
    lua_insert(L, -2);
    lua_call(L, 1, 1);
    luaL_addvalue(out);
}

/** Appends the string at the top with its quotes, and pops it; somebody below must hold it, too. */
static void otlp_add_string(lua_State *L, luaL_Buffer *out)
{
    size_t length;
    const char *text = lua_tolstring(L, -1, &length);
    if (!otlp_is_plain(text, length)) {
        otlp_add_encoded(L, out, SPAN_ENCODE);
        return;
    }
    lua_pop(L, 1); /* the buffer's own place is at the top */
    luaL_addchar(out, '"');
    luaL_addlstring(out, text, length);
    luaL_addchar(out, '"');
}

static void otlp_add_integer(luaL_Buffer *out, lua_Integer value)
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, LUA_INTEGER_FMT, value);
    luaL_addlstring(out, digits, (size_t)length);
}

/** Appends the value at the top, a string, and pops it. */
static void otlp_add_text(lua_State *L, luaL_Buffer *out)
{
    size_t length;
    const char *text = lua_tolstring(L, -1, &length);
    if (!otlp_is_plain(text, length)) {
        otlp_add_encoded(L, out, SPAN_VALUE);
        return;
    }
    lua_pop(L, 1);
    luaL_addstring(out, "{\"stringValue\":\"");
    luaL_addlstring(out, text, length);
    luaL_addstring(out, "\"}");
}

/** Appends the value at the top, and pops it. */
static void otlp_add_value(lua_State *L, luaL_Buffer *out)
{
    if (lua_type(L, -1) == LUA_TSTRING) {
        otlp_add_text(L, out);
    } else if (lua_isinteger(L, -1)) {
        lua_Integer value = lua_tointeger(L, -1);
        lua_pop(L, 1);
        luaL_addstring(out, "{\"intValue\":\"");
        otlp_add_integer(out, value);
        luaL_addstring(out, "\"}");
    } else {
        otlp_add_encoded(L, out, SPAN_VALUE);
    }
}

/** Appends the members of an array of name, value, name, value; a nil is left out. */
static void otlp_add_attributes(lua_State *L, luaL_Buffer *out)
{
    lua_Integer count = lua_tointeger(L, SPAN_COUNT);
    bool is_first = true;
    for (lua_Integer i = 1; i < count; i += 2) {
        if (lua_rawgeti(L, SPAN_ATTRIBUTES, i + 1) == LUA_TNIL) {
            lua_pop(L, 1);
            continue;
        }
        lua_pop(L, 1);
        luaL_addstring(out, is_first ? "{\"key\":" : ",{\"key\":");
        is_first = false;
        if (lua_rawgeti(L, SPAN_ATTRIBUTES, i) != LUA_TSTRING)
            luaL_error(L, "otlp: the name of an attribute must be a string");
        otlp_add_string(L, out);
        luaL_addstring(out, ",\"value\":");
        lua_rawgeti(L, SPAN_ATTRIBUTES, i + 1);
        otlp_add_value(L, out);
        luaL_addchar(out, '}');
    }
}

static void otlp_add_argument(lua_State *L, luaL_Buffer *out, const char *before, int index)
{
    luaL_addstring(out, before);
    lua_pushvalue(L, index);
    otlp_add_string(L, out);
}

static void otlp_add_moment(lua_State *L, luaL_Buffer *out, const char *before, int index)
{
    double nanoseconds = floor(lua_tonumber(L, index) * 1e9);
    luaL_addstring(out, before);
    otlp_add_integer(out, nanoseconds > 0 && nanoseconds < 9e18 ? (lua_Integer)nanoseconds : 0);
    luaL_addchar(out, '"');
}

/*
 * span(trace_id, span_id, parent_id, name, kind, from, to, attributes, count, rest, encode) ->
 * text; from and to are seconds since 1970, `rest` is what follows the attributes, encode(value)
 * writes a string as JSON and any other value as OTLP has it.
 */
static int l_otlp_span(lua_State *L)
{
    for (int i = SPAN_TRACE; i <= SPAN_NAME; i++)
        luaL_checktype(L, i, LUA_TSTRING);
    luaL_checkinteger(L, SPAN_KIND);
    luaL_checknumber(L, SPAN_FROM);
    luaL_checknumber(L, SPAN_TO);
    luaL_checktype(L, SPAN_ATTRIBUTES, LUA_TTABLE);
    luaL_checkinteger(L, SPAN_COUNT);
    luaL_checktype(L, SPAN_REST, LUA_TSTRING);
    luaL_checktype(L, SPAN_ENCODE, LUA_TFUNCTION);
    luaL_checktype(L, SPAN_VALUE, LUA_TFUNCTION);
    lua_settop(L, SPAN_ARGUMENTS);
    luaL_Buffer out;
    luaL_buffinit(L, &out);
    otlp_add_argument(L, &out, "{\"traceId\":", SPAN_TRACE);
    otlp_add_argument(L, &out, ",\"spanId\":", SPAN_ID);
    otlp_add_argument(L, &out, ",\"parentSpanId\":", SPAN_PARENT);
    otlp_add_argument(L, &out, ",\"name\":", SPAN_NAME);
    luaL_addstring(&out, ",\"kind\":");
    otlp_add_integer(&out, lua_tointeger(L, SPAN_KIND));
    otlp_add_moment(L, &out, ",\"startTimeUnixNano\":\"", SPAN_FROM);
    otlp_add_moment(L, &out, ",\"endTimeUnixNano\":\"", SPAN_TO);
    luaL_addstring(&out, ",\"attributes\":[");
    otlp_add_attributes(L, &out);
    luaL_addchar(&out, ']');
    lua_pushvalue(L, SPAN_REST);
    luaL_addvalue(&out);
    luaL_pushresult(&out);
    return 1;
}

static const luaL_Reg otlp_functions[] = {
    {"span", l_otlp_span},
    {NULL, NULL},
};

int luaopen_sluice_core_otlp(lua_State *L)
{
    luaL_newlib(L, otlp_functions);
    return 1;
}
