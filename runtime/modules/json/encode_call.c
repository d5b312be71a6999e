/* SPDX-License-Identifier: MIT */
/* The ways into the encoder: json.encode from Lua, and sl_json_encode from C. */
#include "binding.h"
#include "encode.h"

#include <lauxlib.h>

/* Upvalues: the array metatable, memory that outlives a call, and what checks the options. */
enum { JSON_ENCODE_ARRAY = 1, JSON_ENCODE_KEEPER, JSON_ENCODE_CHECK };

static void json_encoder_init(sl_json_encoder *e, lua_State *L, sl_json_buffer *out,
                              const void *array_metatable, const sl_json_encode_options *options)
{
    static const sl_json_encode_options defaults = {.max_depth = 0};
    const sl_json_encode_options *o = options != NULL ? options : &defaults;
    e->L = L;
    e->out = out;
    e->frames = e->first;
    e->depth = 0;
    e->capacity = SL_JSON_ENCODE_FRAMES;
    e->max_depth = o->max_depth != 0 ? o->max_depth : SL_JSON_DEPTH;
    e->array_metatable = array_metatable;
    e->strict_utf8 = o->strict_utf8;
    e->sorted = o->canonical || o->pretty;
    e->pretty = o->pretty;
}

int sl_json_encode(lua_State *L, int index, const sl_json_encode_options *options,
                   sl_json_buffer *out)
{
    sl_json_encoder e;
    int top = lua_gettop(L);
    luaL_checkstack(L, 16, "json");
    index = lua_absindex(L, index);
    sl_json_push_array_metatable(L);
    json_encoder_init(&e, L, out, lua_topointer(L, -1), options);
    lua_pushnil(L);
    e.frames_slot = e.base = top + 2;
    lua_pushvalue(L, index);
    if (sl_json_encoder_run(&e) < 0) {
        lua_replace(L, top + 1);
        lua_settop(L, top + 1);
        return -1;
    }
    lua_settop(L, top);
    return 0;
}

static void json_read_encode_options(lua_State *L, int index, sl_json_encode_options *options)
{
    sl_json_options_check(L, index, lua_upvalueindex(JSON_ENCODE_CHECK));
    options->canonical = sl_json_option_flag(L, index, "canonical");
    options->pretty = sl_json_option_flag(L, index, "pretty");
    options->strict_utf8 = sl_json_option_strict(L, index, false);
    options->max_depth = sl_json_option_depth(L, index);
}

static int l_json_encode(lua_State *L)
{
    enum { VALUE = 1, OPTIONS, SCRATCH, FRAMES };
    sl_json_encode_options options = {.max_depth = 0};
    sl_json_scratch scratch;
    sl_json_encoder e;
    luaL_checkany(L, VALUE);
    lua_settop(L, FRAMES);
    if (!lua_isnil(L, OPTIONS))
        json_read_encode_options(L, OPTIONS, &options);
    sl_json_scratch_init(&scratch, L, SCRATCH, lua_upvalueindex(JSON_ENCODE_KEEPER));
    json_encoder_init(&e, L, &scratch.buffer, lua_topointer(L, lua_upvalueindex(JSON_ENCODE_ARRAY)),
                      &options);
    e.frames_slot = e.base = FRAMES;
    lua_pushvalue(L, VALUE);
    if (sl_json_encoder_run(&e) < 0) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
        return lua_error(L);
    }
    lua_pushlstring(L, scratch.buffer.data, scratch.buffer.length);
    sl_json_scratch_fini(&scratch);
    return 1;
}

void sl_json_encode_push(lua_State *L, int check)
{
    sl_json_push_array_metatable(L);
    sl_json_keeper_push(L);
    lua_pushvalue(L, check);
    lua_pushcclosure(L, l_json_encode, JSON_ENCODE_CHECK);
}
