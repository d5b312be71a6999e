/* SPDX-License-Identifier: MIT */
/* Lua's view of digests: sluice.core.digest. */
#include "walk.h"

LUAMOD_API int luaopen_sluice_core_digest(lua_State *L);

static const char digest_type[] = "sluice.sha256";

static int l_digest_gc(lua_State *L)
{
    sl_sha256_close(luaL_checkudata(L, 1, digest_type));
    return 0;
}

static sl_sha256 *digest_push(lua_State *L)
{
    sl_sha256 *sha = lua_newuserdatauv(L, sizeof *sha, 0);
    *sha = (sl_sha256){NULL, NULL, 0};
    luaL_setmetatable(L, digest_type);
    return sha;
}

static sl_sha256 *digest_open(lua_State *L, sl_sha256 *sha)
{
    if (sha->context == NULL && !sl_sha256_open(sha))
        luaL_error(L, "OpenSSL gives no SHA-256");
    return sha;
}

/* Pushes the text at `before` (0: none) with the digest in hexadecimal digits behind it. */
static void digest_push_hex(lua_State *L, const unsigned char digest[SL_SHA256_SIZE], int before)
{
    static const char digits[] = "0123456789abcdef";
    char hex[SL_SHA256_SIZE * 2];
    for (int i = 0; i < SL_SHA256_SIZE; i++) {
        hex[i * 2] = digits[digest[i] >> 4];
        hex[i * 2 + 1] = digits[digest[i] & 15];
    }
    if (before != 0)
        lua_pushvalue(L, before);
    lua_pushlstring(L, hex, sizeof hex);
    if (before != 0)
        lua_concat(L, 2);
}

/* sha256(bytes) -> hexadecimal */
static int l_digest_sha256(lua_State *L)
{
    unsigned char digest[SL_SHA256_SIZE];
    size_t size;
    const char *bytes = luaL_checklstring(L, 1, &size);
    sl_sha256 *sha = digest_open(L, lua_touserdata(L, lua_upvalueindex(1)));
    if (!sl_sha256_start(sha) || !sl_sha256_add(sha, bytes, size) || !sl_sha256_finish(sha, digest))
        return luaL_error(L, "SHA-256 failed");
    digest_push_hex(L, digest, 0);
    return 1;
}

/* What canonical() is called with, on the stack. */
enum { DIGEST_VALUE = 1, DIGEST_SCOPE, DIGEST_PREFIX, DIGEST_SKIP };

/* False where the value has no canonical form; `failed` where the digest has. */
static bool digest_value(lua_State *L, sl_sha256 *sha, unsigned char digest[SL_SHA256_SIZE],
                         bool *failed)
{
    sl_canonical out;
    size_t size;
    const char *scope = lua_tolstring(L, DIGEST_SCOPE, &size);
    sl_canonical_start(&out, sha);
    sl_canonical_integer(&out, SL_CANONICAL_VERSION);
    sl_canonical_string(&out, scope, size);
    lua_pushvalue(L, DIGEST_VALUE);
    if (!sl_digest_walk(L, &out, lua_topointer(L, lua_upvalueindex(2)),
                        lua_isnil(L, DIGEST_SKIP) ? 0 : DIGEST_SKIP))
        return false;
    *failed = !sl_canonical_finish(&out, digest);
    return true;
}

/* canonical(value, scope, prefix [, skip]) -> prefix and the digest of scope and value | nil */
static int l_digest_canonical(lua_State *L)
{
    sl_sha256 *sha = digest_open(L, lua_touserdata(L, lua_upvalueindex(1)));
    unsigned char digest[SL_SHA256_SIZE];
    size_t turn = sha->started + 1;
    bool failed = false, has_form;
    luaL_checkstring(L, DIGEST_SCOPE);
    luaL_checkstring(L, DIGEST_PREFIX);
    lua_settop(L, DIGEST_SKIP);
    if (!lua_isnil(L, DIGEST_SKIP))
        luaL_checktype(L, DIGEST_SKIP, LUA_TTABLE);
    has_form = digest_value(L, sha, digest, &failed);
    lua_settop(L, DIGEST_SKIP);
    if (has_form && sha->started != turn) { /* a __tojson of the value made a digest of its own */
        sha = digest_open(L, digest_push(L));
        has_form = digest_value(L, sha, digest, &failed);
    }
    if (failed)
        return luaL_error(L, "SHA-256 failed");
    if (has_form)
        digest_push_hex(L, digest, DIGEST_PREFIX);
    else
        lua_pushnil(L);
    return 1;
}

/* new(array_metatable) -> sha256, canonical */
static int l_digest_new(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    digest_push(L);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, l_digest_sha256, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, l_digest_canonical, 2);
    return 2;
}

static const luaL_Reg digest_functions[] = {
    {"new", l_digest_new},
    {NULL, NULL},
};

int luaopen_sluice_core_digest(lua_State *L)
{
    if (luaL_newmetatable(L, digest_type)) {
        lua_pushcfunction(L, l_digest_gc);
        lua_setfield(L, -2, "__gc");
    }
    luaL_newlib(L, digest_functions);
    return 1;
}
