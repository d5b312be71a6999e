/* SPDX-License-Identifier: MIT */
/* Working memory for one call from Lua, safe against errors that jump out of it. */
#include "json.h"

#include <lauxlib.h>

#define JSON_BLOCK "sluice.json.block"

struct json_block {
    void *bytes;
    size_t size;
};

static void json_block_free(lua_State *L, struct json_block *block)
{
    void *user, *bytes = block->bytes;
    lua_Alloc alloc = lua_getallocf(L, &user);
    block->bytes = NULL;
    if (bytes != NULL)
        alloc(user, bytes, block->size, 0);
}

static int l_json_block_gc(lua_State *L)
{
    json_block_free(L, luaL_checkudata(L, 1, JSON_BLOCK));
    return 0;
}

static struct json_block *json_block_at(lua_State *L, int slot)
{
    struct json_block *block = lua_touserdata(L, slot);
    if (block != NULL)
        return block;
    block = lua_newuserdatauv(L, sizeof *block, 0);
    *block = (struct json_block){NULL, 0};
    if (luaL_newmetatable(L, JSON_BLOCK)) {
        lua_pushcfunction(L, l_json_block_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    lua_replace(L, slot);
    return block;
}

static bool json_scratch_grow(sl_json_buffer *buffer, size_t capacity)
{
    sl_json_scratch *scratch = (sl_json_scratch *)(void *)buffer;
    lua_State *L = scratch->L;
    struct json_block *block;
    void *user, *bytes;
    lua_Alloc alloc = lua_getallocf(L, &user);
    luaL_checkstack(L, 4, "json");
    block = json_block_at(L, scratch->slot);
    bytes = alloc(user, block->bytes, block->size, capacity);
    if (bytes == NULL)
        luaL_error(L, "not enough memory");
    if (block->bytes == NULL)
        memcpy(bytes, scratch->first, buffer->length);
    block->bytes = bytes;
    block->size = capacity;
    buffer->data = bytes;
    buffer->capacity = capacity;
    return true;
}

void sl_json_scratch_init(sl_json_scratch *scratch, lua_State *L, int slot)
{
    scratch->buffer = (sl_json_buffer){.grow = json_scratch_grow};
    scratch->buffer.data = scratch->first;
    scratch->buffer.capacity = sizeof scratch->first;
    scratch->L = L;
    scratch->slot = slot;
}

void sl_json_scratch_fini(sl_json_scratch *scratch)
{
    struct json_block *block = lua_touserdata(scratch->L, scratch->slot);
    if (block != NULL)
        json_block_free(scratch->L, block);
}
