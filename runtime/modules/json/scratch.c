/* SPDX-License-Identifier: MIT */
/* Working memory for one call from Lua, safe against errors that jump out of it. */
#include "binding.h"

#include <lauxlib.h>

#define JSON_BLOCK "sluice.json.block"

enum { JSON_BLOCK_KEPT = 128 * 1024 }; /* bytes; more is freed after the call */

/* A userdata that owns memory; the scratch of a call, or what it leaves for the next one. */
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

static struct json_block *json_block_push(lua_State *L)
{
    struct json_block *block = lua_newuserdatauv(L, sizeof *block, 0);
    *block = (struct json_block){NULL, 0};
    if (luaL_newmetatable(L, JSON_BLOCK)) {
        lua_pushcfunction(L, l_json_block_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return block;
}

void sl_json_keeper_push(lua_State *L)
{
    json_block_push(L);
}

/* The block of this call; the first time, with what the keeper has. */
static struct json_block *json_scratch_block(sl_json_scratch *scratch)
{
    lua_State *L = scratch->L;
    struct json_block *block = lua_touserdata(L, scratch->slot), *kept;
    if (block != NULL)
        return block;
    luaL_checkstack(L, 4, "json");
    block = json_block_push(L);
    lua_replace(L, scratch->slot);
    kept = lua_touserdata(L, scratch->keeper);
    *block = *kept;
    *kept = (struct json_block){NULL, 0};
    return block;
}

static bool json_scratch_grow(sl_json_buffer *buffer, size_t capacity)
{
    sl_json_scratch *scratch = (sl_json_scratch *)(void *)buffer;
    struct json_block *block = json_scratch_block(scratch);
    if (block->size < capacity) {
        void *user, *bytes;
        lua_Alloc alloc = lua_getallocf(scratch->L, &user);
        bytes = alloc(user, block->bytes, block->size, capacity);
        if (bytes == NULL)
            return luaL_error(scratch->L, "not enough memory");
        block->bytes = bytes;
        block->size = capacity;
    }
    if (buffer->data == scratch->first)
        memcpy(block->bytes, scratch->first, buffer->length);
    buffer->data = block->bytes;
    buffer->capacity = block->size;
    return true;
}

void sl_json_scratch_init(sl_json_scratch *scratch, lua_State *L, int slot, int keeper)
{
    scratch->buffer = (sl_json_buffer){.grow = json_scratch_grow};
    scratch->buffer.data = scratch->first;
    scratch->buffer.capacity = sizeof scratch->first;
    scratch->L = L;
    scratch->slot = slot;
    scratch->keeper = keeper;
}

void sl_json_scratch_fini(sl_json_scratch *scratch)
{
    lua_State *L = scratch->L;
    struct json_block *block = lua_touserdata(L, scratch->slot);
    struct json_block *kept = lua_touserdata(L, scratch->keeper);
    if (block == NULL)
        return;
    if (kept->bytes == NULL && block->size <= JSON_BLOCK_KEPT) {
        *kept = *block;
        block->bytes = NULL;
    } else {
        json_block_free(L, block);
    }
    block->size = 0;
}
