/* SPDX-License-Identifier: MIT */
/* json.members: the fields of a flat table, as nearly all lines of a log have them. */
#include "binding.h"

#include <lauxlib.h>
#include <math.h>

enum {
    MEMBERS_MOST = 64,
    /** Bytes; what is longer is for the caller to cut. */
    MEMBERS_LONGEST = 65536,
};

/** Slots of the stack. */
enum { MEMBERS_FIELDS = 1, MEMBERS_SHOWN, MEMBERS_SCRATCH, MEMBERS_SLOTS = MEMBERS_SCRATCH };

/** A field; the texts belong to the table of fields. */
typedef struct json_member {
    const char *name, *text;
    size_t name_length, text_length;
    int type;
    bool is_integer;
    lua_Integer integer;
    lua_Number number;
} json_member;

static bool json_member_is_before(const json_member *a, const json_member *b)
{
    size_t shorter = a->name_length < b->name_length ? a->name_length : b->name_length;
    int order = memcmp(a->name, b->name, shorter);
    return order ? order < 0 : a->name_length < b->name_length;
}

static void json_members_insert(const json_member **all, int count, const json_member *member)
{
    while (count > 0 && json_member_is_before(member, all[count - 1])) {
        all[count] = all[count - 1];
        count--;
    }
    all[count] = member;
}

/** Reads the value at the top; false where JSON cannot have it as it is. */
static bool json_member_read_value(lua_State *L, json_member *member)
{
    member->type = lua_type(L, -1);
    switch (member->type) {
    case LUA_TSTRING:
        member->text = lua_tolstring(L, -1, &member->text_length);
        return true;
    case LUA_TBOOLEAN:
        member->integer = lua_toboolean(L, -1);
        return true;
    case LUA_TNUMBER:
        member->is_integer = lua_isinteger(L, -1);
        member->integer = lua_tointeger(L, -1);
        member->number = lua_tonumber(L, -1);
        return member->is_integer || isfinite(member->number);
    default:
        return false;
    }
}

/** Whether the name at the top may be shown. */
static bool json_member_is_shown(lua_State *L)
{
    lua_pushvalue(L, -1);
    lua_gettable(L, MEMBERS_SHOWN);
    bool is_shown = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return is_shown;
}

/** Reads the fields, and puts them in the order of their names; -1 where there is more than this
 * file can do. */
static int json_members_read(lua_State *L, json_member *all, const json_member **sorted)
{
    int count = 0;
    for (lua_pushnil(L); lua_next(L, MEMBERS_FIELDS); count++) {
        bool is_good = count < MEMBERS_MOST && json_member_read_value(L, &all[count]);
        lua_pop(L, 1);
        if (!is_good || lua_type(L, -1) != LUA_TSTRING || !json_member_is_shown(L))
            return -1;
        all[count].name = lua_tolstring(L, -1, &all[count].name_length);
        json_members_insert(sorted, count, &all[count]);
    }
    return count;
}

static void json_member_add_string(lua_State *L, sl_json_buffer *out, const char *text,
                                   size_t length)
{
    if (sl_json_write_string(out, text, length, false) == SL_JSON_NO_MEMORY)
        luaL_error(L, "not enough memory");
}

static void json_member_add_byte(sl_json_buffer *out, char byte)
{
    *sl_json_reserve(out, 1) = byte;
    out->length++;
}

static void json_member_add_value(lua_State *L, sl_json_buffer *out, const json_member *member)
{
    if (member->type == LUA_TSTRING) {
        json_member_add_string(L, out, member->text, member->text_length);
        return;
    }
    char *room = sl_json_reserve(out, SL_JSON_NUMBER_SIZE), *end;
    if (member->type == LUA_TBOOLEAN) {
        size_t length = member->integer ? 4 : 5;
        memcpy(room, member->integer ? "true" : "false", length);
        end = room + length;
    } else if (member->is_integer) {
        end = sl_json_write_integer(room, member->integer);
    } else {
        end = sl_json_write_double(room, member->number);
    }
    out->length = (size_t)(end - out->data);
}

static bool json_members_write(lua_State *L, const json_member *const *sorted, int count,
                               sl_json_buffer *out)
{
    for (int i = 0; i < count && out->length <= MEMBERS_LONGEST; i++) {
        if (i > 0)
            json_member_add_byte(out, ',');
        json_member_add_string(L, out, sorted[i]->name, sorted[i]->name_length);
        json_member_add_byte(out, ':');
        json_member_add_value(L, out, sorted[i]);
    }
    return out->length <= MEMBERS_LONGEST;
}

/*
 * members(fields, shown) -> text | nil: the fields in the order of their names, without braces; nil
 * where one is no text, number or boolean, or has a name that shown[name] is not true for, or where
 * they are too many or too long.
 */
static int l_json_members(lua_State *L)
{
    json_member all[MEMBERS_MOST];
    const json_member *sorted[MEMBERS_MOST];
    sl_json_scratch scratch;
    luaL_checktype(L, MEMBERS_FIELDS, LUA_TTABLE);
    luaL_checktype(L, MEMBERS_SHOWN, LUA_TTABLE);
    lua_settop(L, MEMBERS_SLOTS);
    int count = json_members_read(L, all, sorted);
    if (count < 0)
        return 0;
    lua_settop(L, MEMBERS_SLOTS);
    sl_json_scratch_init(&scratch, L, MEMBERS_SCRATCH, lua_upvalueindex(1));
    bool is_whole = json_members_write(L, sorted, count, &scratch.buffer);
    if (is_whole)
        lua_pushlstring(L, scratch.buffer.data, scratch.buffer.length);
    sl_json_scratch_fini(&scratch);
    return is_whole ? 1 : 0;
}

void sl_json_members_push(lua_State *L)
{
    sl_json_keeper_push(L);
    lua_pushcclosure(L, l_json_members, 1);
}
