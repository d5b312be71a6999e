/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the JSON codec: what is read is written, read and written again, and must stay the same;
 * texts that are refused have an offset inside the text; every double survives.
 */
#include "modules/json/json.h"

#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require_that(bool is_so, const char *what)
{
    if (!is_so) {
        fprintf(stderr, "json_fuzz: %s\n", what);
        abort();
    }
}

/* A state with the module in slot 1. */
static lua_State *open_module(void)
{
    lua_State *L = luaL_newstate();
    require_that(L != NULL, "no memory");
    lua_pushcfunction(L, luaopen_sluice_core_json);
    lua_call(L, 0, 1);
    return L;
}

/* Calls module.NAME with the value on top; replaces it by `results`. */
static void call_function(lua_State *L, const char *name, const char *option, const char *choice,
                          int results)
{
    lua_getfield(L, 1, name);
    lua_insert(L, -2);
    lua_createtable(L, 0, 1);
    if (choice != NULL)
        lua_pushstring(L, choice);
    else
        lua_pushboolean(L, 1);
    lua_setfield(L, -2, option);
    if (lua_pcall(L, 2, results, 0) != LUA_OK)
        require_that(false, lua_tostring(L, -1));
}

static void check_refusal(lua_State *L, size_t size)
{
    lua_Integer offset = lua_tointeger(L, -1);
    require_that(lua_type(L, -2) == LUA_TSTRING, "a refusal without a message");
    require_that(offset >= 1 && (size_t)offset <= size + 1, "an offset outside of the text");
}

static void *plain_alloc(void *user, void *block, size_t old_size, size_t new_size)
{
    (void)user;
    (void)old_size;
    if (new_size == 0) {
        free(block);
        return NULL;
    }
    return realloc(block, new_size);
}

/* The value on top: what C code gets is what Lua gets. */
static void check_c_encoder(lua_State *L)
{
    sl_json_buffer out;
    size_t length;
    const char *text;
    int top = lua_gettop(L);
    sl_json_buffer_init(&out, plain_alloc, NULL);
    require_that(sl_json_encode(L, -1, NULL, &out) == 0 && lua_gettop(L) == top,
                 "the encoder for C failed");
    lua_pushvalue(L, -1);
    call_function(L, "encode", "invalid_utf8", "replace", 1);
    text = lua_tolstring(L, -1, &length);
    require_that(length == out.length && memcmp(text, out.data, length) == 0,
                 "the encoder for C gave another text");
    lua_pop(L, 1);
    sl_json_buffer_fini(&out);
}

/* The value on top: text, value, text again; and through the plain encoder as well. */
static void check_round_trip(lua_State *L)
{
    check_c_encoder(L);
    lua_pushvalue(L, -1);
    call_function(L, "encode", "canonical", NULL, 1);
    lua_pushvalue(L, -1);
    call_function(L, "decode", "invalid_utf8", "error", 1);
    call_function(L, "encode", "canonical", NULL, 1);
    require_that(lua_rawequal(L, -1, -2), "the canonical text changed");
    lua_pushvalue(L, -3);
    call_function(L, "encode", "invalid_utf8", "error", 1);
    call_function(L, "decode", "invalid_utf8", "error", 1);
    call_function(L, "encode", "canonical", NULL, 1);
    require_that(lua_rawequal(L, -1, -2), "the plain text means something else");
}

static void check_text(lua_State *L, const uint8_t *data, size_t size, const char *utf8)
{
    lua_settop(L, 1);
    lua_pushlstring(L, (const char *)data, size);
    call_function(L, "decode", "invalid_utf8", utf8, 3);
    if (lua_isnil(L, -3))
        check_refusal(L, size);
    else {
        lua_pop(L, 2);
        check_round_trip(L);
    }
}

static void check_double(const uint8_t *data, size_t size)
{
    char text[SL_JSON_NUMBER_SIZE + 1], *end;
    sl_json_number number;
    double value;
    if (size != sizeof value)
        return;
    memcpy(&value, data, sizeof value);
    if (!isfinite(value))
        return;
    end = sl_json_write_double(text, value);
    *end = '\0';
    require_that(strtod(text, NULL) == value, "a double was written wrong");
    require_that(sl_json_read_number(text, &number) == end, "a double was not read to its end");
    require_that(number.kind == SL_JSON_FLOAT && number.value == value &&
                     signbit(number.value) == signbit(value),
                 "a double was read wrong");
}

/* Any bytes as a string, written and read again. */
static void check_string(lua_State *L, const uint8_t *data, size_t size)
{
    lua_settop(L, 1);
    lua_pushlstring(L, (const char *)data, size);
    call_function(L, "encode", "invalid_utf8", "replace", 1);
    lua_pushvalue(L, -1);
    call_function(L, "decode", "invalid_utf8", "error", 1);
    require_that(lua_type(L, -1) == LUA_TSTRING, "a written string was refused");
    call_function(L, "encode", "invalid_utf8", "error", 1);
    require_that(lua_rawequal(L, -1, -2), "a string changed");
}

/* An allocator that counts what it holds, and has memory for `left` more calls. */
struct meter {
    size_t held, left;
};

static void *meter_alloc(void *user, void *block, size_t old_size, size_t new_size)
{
    struct meter *meter = user;
    void *moved;
    if (block == NULL)
        old_size = 0;
    if (new_size > old_size && meter->left-- == 0) {
        meter->left = 0;
        return NULL;
    }
    meter->held += new_size - old_size;
    if (new_size == 0) {
        free(block);
        return NULL;
    }
    moved = realloc(block, new_size);
    require_that(moved != NULL, "no memory");
    return moved;
}

/* (text) decodes and encodes */
static int l_there_and_back(lua_State *L)
{
    lua_getfield(L, lua_upvalueindex(1), "encode");
    lua_getfield(L, lua_upvalueindex(1), "decode");
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    lua_createtable(L, 0, 1);
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "canonical");
    lua_call(L, 2, 1);
    return 1;
}

/* Memory runs out after as many allocations as the first byte says: an error, and nothing lost. */
static void check_memory(const uint8_t *data, size_t size)
{
    struct meter meter = {0, SIZE_MAX};
    lua_State *L = lua_newstate(meter_alloc, &meter);
    require_that(L != NULL, "no memory");
    lua_pushcfunction(L, luaopen_sluice_core_json);
    lua_call(L, 0, 1);
    lua_pushcclosure(L, l_there_and_back, 1);
    lua_pushlstring(L, (const char *)data, size);
    lua_gc(L, LUA_GCSTOP);
    meter.left = size > 0 ? data[size / 2] : 0;
    lua_pcall(L, 1, 1, 0);
    meter.left = SIZE_MAX;
    lua_close(L);
    require_that(meter.held == 0, "memory was lost");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lua_State *L = open_module();
    check_memory(data, size);
    check_double(data, size);
    check_text(L, data, size, "error");
    check_text(L, data, size, "replace");
    check_string(L, data, size);
    lua_close(L);
    return 0;
}
