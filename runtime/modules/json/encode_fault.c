/* SPDX-License-Identifier: MIT */
/* Why a value cannot be encoded, with the path to it: "messages[2].content: a function ...". */
#include "encode.h"

#include <lauxlib.h>
#include <ctype.h>
#include <stdarg.h>

enum {
    JSON_PATH_FIRST = 12, /* keys of a deep path that are shown, and those at its end */
    JSON_PATH_LAST = 4,
    JSON_PATH_KEY = 60, /* bytes of a key that are shown */
};

static bool json_is_name(const char *text, size_t length)
{
    if (length == 0 || length > JSON_PATH_KEY || isdigit((unsigned char)text[0]))
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c != '_' && (c >= 0x80 || !isalnum(c)))
            return false;
    }
    return true;
}

static void json_path_key(luaL_Buffer *b, const char *text, size_t length, bool is_first)
{
    if (json_is_name(text, length)) {
        if (!is_first)
            luaL_addchar(b, '.');
        luaL_addlstring(b, text, length);
        return;
    }
    luaL_addstring(b, "[\"");
    for (size_t i = 0; i < length && i < JSON_PATH_KEY; i++) {
        unsigned char c = (unsigned char)text[i];
        luaL_addchar(b, c < 0x20 || c >= 0x7F ? '?' : (char)c);
    }
    luaL_addstring(b, length > JSON_PATH_KEY ? "...\"]" : "\"]");
}

static void json_path_index(luaL_Buffer *b, lua_Integer index)
{
    char text[SL_JSON_NUMBER_SIZE];
    luaL_addchar(b, '[');
    luaL_addlstring(b, text, (size_t)(sl_json_write_integer(text, index) - text));
    luaL_addchar(b, ']');
}

/* The member that the frame has begun. */
static void json_path_step(const sl_json_encoder *e, luaL_Buffer *b, size_t depth)
{
    const sl_json_frame *frame = &e->frames[depth - 1];
    size_t length;
    const char *text;
    switch (frame->shape) {
    case SL_JSON_OBJECT:
        text = lua_tolstring(e->L, sl_json_table_slot(e, depth) + 1, &length);
        json_path_key(b, text, length, depth == 1);
        break;
    case SL_JSON_SORTED:
        text = frame->keys[frame->index - 1].text;
        json_path_key(b, text, frame->keys[frame->index - 1].length, depth == 1);
        break;
    case SL_JSON_ARRAY:
    case SL_JSON_INDEXED:
    default:
        json_path_index(b, frame->index);
    }
}

/* Pushes the path of the member that the `depth` outer frames have come to. */
static void json_push_path(const sl_json_encoder *e, size_t depth)
{
    luaL_Buffer b;
    luaL_buffinit(e->L, &b);
    if (depth == 0)
        luaL_addstring(&b, "value");
    for (size_t i = 1; i <= depth; i++) {
        if (i == JSON_PATH_FIRST + 1 && depth > JSON_PATH_FIRST + JSON_PATH_LAST) {
            luaL_addstring(&b, "...");
            i = depth - JSON_PATH_LAST + 1;
        }
        json_path_step(e, &b, i);
    }
    luaL_pushresult(&b);
}

/* Makes the reason on top of the stack "path: reason". */
static sl_json_step json_fail_at(sl_json_encoder *e, size_t depth)
{
    json_push_path(e, depth);
    lua_insert(e->L, -2);
    lua_pushliteral(e->L, ": ");
    lua_insert(e->L, -2);
    lua_concat(e->L, 3);
    return SL_JSON_FAILED;
}

static void json_fault_room(sl_json_encoder *e)
{
    luaL_checkstack(e->L, 12, "json"); /* for luaL_Buffer, lua_concat and the names */
}

sl_json_step sl_json_encode_fault(sl_json_encoder *e, const char *format, ...)
{
    va_list arguments;
    json_fault_room(e);
    va_start(arguments, format);
    lua_pushvfstring(e->L, format, arguments);
    va_end(arguments);
    return json_fail_at(e, e->depth);
}

sl_json_step sl_json_type_fault(sl_json_encoder *e)
{
    lua_State *L = e->L;
    const char *name;
    json_fault_room(e);
    name = luaL_getmetafield(L, -1, "__name") == LUA_TSTRING ? lua_tostring(L, -1)
                                                             : luaL_typename(L, -1);
    if (strncmp(name, "sluice.", 7) == 0)
        name += 7;
    return sl_json_encode_fault(e, "%s %s cannot be encoded as JSON",
                                strchr("aeio", name[0]) != NULL ? "an" : "a", name);
}

/* Which keys the table has: strings, indices, others. */
static void json_survey_keys(lua_State *L, int table, bool *strings, const char **other,
                             lua_Integer *members, lua_Integer *largest)
{
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            *strings = true;
        } else if (!lua_isinteger(L, -2)) {
            *other = lua_type(L, -2) == LUA_TNUMBER ? "fractional" : luaL_typename(L, -2);
        } else {
            lua_Integer key = lua_tointeger(L, -2);
            if (key < 1)
                *other = key == 0 ? "zero" : "negative";
            *largest = key > *largest ? key : *largest;
            ++*members;
        }
    }
}

sl_json_step sl_json_shape_fault(sl_json_encoder *e)
{
    lua_State *L = e->L;
    bool strings = false, is_array;
    const char *other = NULL;
    lua_Integer members = 0, largest = 0;
    int table = sl_json_table_slot(e, e->depth);
    lua_settop(L, table);
    json_fault_room(e);
    is_array = lua_getmetatable(L, table) && lua_topointer(L, -1) == e->array_metatable;
    lua_settop(L, table);
    json_survey_keys(L, table, &strings, &other, &members, &largest);
    if (other != NULL)
        lua_pushfstring(L, "a table with a %s key cannot be encoded as JSON", other);
    else if (strings && is_array)
        lua_pushliteral(L, "a json.array with a string key cannot be encoded");
    else if (strings)
        lua_pushliteral(L, "a table with both indices and string keys cannot be encoded as JSON");
    else
        lua_pushfstring(L,
                        "an array with holes (%I values, the last at %I) cannot be encoded as "
                        "JSON: fill them with json.null",
                        (LUAI_UACINT)members, (LUAI_UACINT)largest);
    return json_fail_at(e, e->depth - 1);
}
