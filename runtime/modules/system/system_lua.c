/* SPDX-License-Identifier: MIT */
/* What the operating system tells: environment, wall clock, randomness, terminals, small files. */
#include "core/core.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

LUAMOD_API int luaopen_sluice_core_system(lua_State *L);

/* Larger reads are data, not configuration, and belong elsewhere. */
#define MAX_FILE (16 * 1024 * 1024)
#define MAX_RANDOM (64 * 1024)

/* getenv(name) -> value | nil */
static int l_system_getenv(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    sl_require_capability(L, SL_CAN_READ_ENVIRONMENT, "reading the environment");
    lua_pushstring(L, sl_environment_get(L, name));
    return 1;
}

/* wall() -> seconds since the epoch, with microseconds */
static int l_system_wall(lua_State *L)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t microseconds = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    lua_pushnumber(L, (double)microseconds / 1e6);
    return 1;
}

/* False with errno set. */
static bool fill_random(void *target, size_t length)
{
    char *at = target;
    while (length > 0) {
        ssize_t got = getrandom(at, length, 0);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return false;
        }
        at += got;
        length -= (size_t)got;
    }
    return true;
}

/* random(n) -> n bytes fit for keys */
static int l_system_random(lua_State *L)
{
    lua_Integer count = luaL_checkinteger(L, 1);
    luaL_argcheck(L, count >= 0 && count <= MAX_RANDOM, 1, "0 to 65536 bytes");
    luaL_Buffer buffer;
    char *target = luaL_buffinitsize(L, &buffer, (size_t)count);
    if (!fill_random(target, (size_t)count)) {
        return luaL_error(L, "random: %s", strerror(errno));
    }
    luaL_pushresultsize(&buffer, (size_t)count);
    return 1;
}

/* xoshiro256**, by Blackman and Vigna: fast, and good enough for jitter; not for keys. */
struct generator {
    uint64_t state[4];
};

static uint64_t rotate_left(uint64_t value, int by)
{
    return (value << by) | (value >> (64 - by));
}

static uint64_t generator_next(struct generator *generator)
{
    uint64_t *s = generator->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t mixed = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= mixed;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* random_float() -> a number in [0, 1) */
static int l_system_random_float(lua_State *L)
{
    struct generator *generator = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushnumber(L, (double)(generator_next(generator) >> 11) * 0x1.0p-53);
    return 1;
}

static int push_errno(lua_State *L, int code)
{
    lua_pushnil(L);
    lua_pushstring(L, strerror(code));
    lua_pushinteger(L, code);
    return 3;
}

/* The file is closed by a to-be-closed box, because every push may raise. */
static int l_file_close(lua_State *L)
{
    FILE **box = lua_touserdata(L, 1);
    FILE *file = *box;
    *box = NULL;
    if (file) {
        fclose(file);
    }
    return 0;
}

static FILE **push_file_box(lua_State *L)
{
    FILE **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    if (luaL_newmetatable(L, "sluice.system.file")) {
        lua_pushcfunction(L, l_file_close);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, l_file_close);
        lua_setfield(L, -2, "__close");
    }
    lua_setmetatable(L, -2);
    lua_toclose(L, -1);
    return box;
}

/* read_file(path) -> bytes | nil, text, errno; for files of at most 16 MiB */
static int l_system_read_file(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    sl_require_capability(L, SL_CAN_READ_FILES, "reading a file");
    FILE **box = push_file_box(L);
    *box = fopen(path, "rbe");
    if (!*box) {
        return push_errno(L, errno);
    }
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    size_t total = 0, got;
    do {
        char *target = luaL_prepbuffer(&buffer);
        got = fread(target, 1, LUAL_BUFFERSIZE, *box);
        luaL_addsize(&buffer, got);
        total += got;
    } while (got > 0 && total <= MAX_FILE);
    int failure = ferror(*box) ? errno : total > MAX_FILE ? EFBIG : 0;
    luaL_pushresult(&buffer);
    return failure ? push_errno(L, failure) : 1;
}

/* file_stamp(path) -> a text that changes when the file does | nil, text, errno */
static int l_system_file_stamp(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    sl_require_capability(L, SL_CAN_READ_FILES, "looking at a file");
    struct stat info;
    if (stat(path, &info) != 0) {
        return push_errno(L, errno);
    }
    char text[128];
    snprintf(text, sizeof text, "%llx:%llx:%llx:%llx.%09ld", (unsigned long long)info.st_dev,
             (unsigned long long)info.st_ino, (unsigned long long)info.st_size,
             (unsigned long long)info.st_mtim.tv_sec, (long)info.st_mtim.tv_nsec);
    lua_pushstring(L, text);
    return 1;
}

/** As many digits, with zeros before them, and what follows them; gives the place after that. */
static char *put_digits(char *to, int value, int digits, char after)
{
    for (int i = digits; i > 0; i--, value /= 10)
        to[i - 1] = (char)('0' + value % 10);
    to[digits] = after;
    return to + digits + 1;
}

/* utc(seconds) -> "2026-01-01T00:00:00.123Z" */
static int l_system_utc(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    /* years 0001 to 9999 */
    luaL_argcheck(L, seconds >= -62135596800.0 && seconds < 253402300800.0, 1,
                  "seconds since the epoch expected");
    /* rounded to the microsecond of wall() first, so that .123 does not become .122 */
    int64_t microseconds = (int64_t)floor(seconds * 1e6 + 0.5);
    int64_t rest = microseconds % 1000000;
    if (rest < 0) {
        rest += 1000000;
    }
    time_t whole = (time_t)((microseconds - rest) / 1000000);
    struct tm tm;
    gmtime_r(&whole, &tm);
    char text[sizeof "2026-01-01T00:00:00.123Z"], *end = text;
    end = put_digits(end, tm.tm_year + 1900, 4, '-');
    end = put_digits(end, tm.tm_mon + 1, 2, '-');
    end = put_digits(end, tm.tm_mday, 2, 'T');
    end = put_digits(end, tm.tm_hour, 2, ':');
    end = put_digits(end, tm.tm_min, 2, ':');
    end = put_digits(end, tm.tm_sec, 2, '.');
    end = put_digits(end, (int)(rest / 1000), 3, 'Z');
    lua_pushlstring(L, text, (size_t)(end - text));
    return 1;
}

static const luaL_Reg system_functions[] = {
    {"getenv", l_system_getenv},
    {"wall", l_system_wall},
    {"random", l_system_random},
    {"read_file", l_system_read_file},
    {"utc", l_system_utc},
    {"file_stamp", l_system_file_stamp},
    {NULL, NULL},
};

int luaopen_sluice_core_system(lua_State *L)
{
    luaL_newlib(L, system_functions);
    struct generator *generator = lua_newuserdatauv(L, sizeof *generator, 0);
    if (!fill_random(generator, sizeof *generator)) {
        return luaL_error(L, "random: %s", strerror(errno));
    }
    generator->state[0] |= 1; /* the one forbidden state is all zeros */
    lua_pushcclosure(L, l_system_random_float, 1);
    lua_setfield(L, -2, "random_float");
    return 1;
}
