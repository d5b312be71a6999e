/* SPDX-License-Identifier: MIT */
/* What the host allows of what it has granted: instructions, hosts, methods, requests, bytes. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    /* Instructions of a __tostring or __tojson that runs outside of every task: about 1 ms. */
    BRIEF_INSTRUCTIONS = 100000,
    /* From here on the clock is looked at after work in C. */
    LONG_WORK = 1000,
};

/* ---- instructions ---- */

bool sl_meter_take(sl_core *core, sl_task *task)
{
    sl_meter *meter = core->current ? core->current->meter : NULL;
    if (!meter && core->limits.instructions > 0) {
        meter = sl_alloc_array(core, 1, sizeof *meter);
        if (!meter)
            return false;
        meter->left = core->limits.instructions;
    }
    task->meter = meter;
    if (meter)
        meter->users++;
    return true;
}

void sl_meter_release(sl_core *core, sl_task *task)
{
    sl_meter *meter = task->meter;
    if (!meter)
        return;
    task->exhausted = meter->left == 0;
    task->meter = NULL;
    if (--meter->users == 0)
        sl_free(core, meter);
}

bool sl_meter_count(sl_meter *meter, uint64_t count)
{
    if (!meter)
        return true;
    meter->left -= count < meter->left ? count : meter->left;
    return meter->left > 0;
}

void sl_push_exhausted(lua_State *L, sl_core *core)
{
    sl_error_push(L, SL_LIMIT_KIND, "more than %llu instructions of Lua",
                  (unsigned long long)core->limits.instructions);
}

void sl_count_instructions(lua_State *L, uint64_t count)
{
    sl_core *core = sl_core_find(L);
    if (!core || !core->current || L != core->running)
        return;
    if (count >= LONG_WORK)
        sl_slice_look(core, L);
    if (sl_meter_count(core->current->meter, count))
        return;
    sl_slice_arm(core, L);
    sl_push_exhausted(L, core);
    lua_error(L);
}

bool sl_should_stop(sl_core *core, uint64_t count)
{
    sl_task *task = core->current;
    if (core->interrupted)
        return true;
    return task && (!sl_meter_count(task->meter, count) || sl_is_pending(task));
}

void sl_stop_check(lua_State *L)
{
    sl_core *core = sl_core_of(L);
    if (core->current && sl_pending_push(L, core->current))
        lua_error(L);
    sl_count_instructions(L, 0);
}

bool sl_hooks_may_be_off(lua_State *L)
{
    const sl_core *core = sl_core_find(L);
    return core && core->raised_in_hook;
}

void sl_hooks_are_on(lua_State *L)
{
    sl_core *core = sl_core_find(L);
    if (core)
        core->raised_in_hook = false;
}

static void brief_hook(lua_State *L, lua_Debug *frame)
{
    (void)frame;
    lua_sethook(L, brief_hook, LUA_MASKCOUNT, 1); /* pcall in there does not help it */
    luaL_error(L, "it takes too long");
}

int sl_call_briefly(lua_State *L, int arguments, int results)
{
    lua_Hook hook = lua_gethook(L);
    int mask = lua_gethookmask(L), count = lua_gethookcount(L);
    lua_sethook(L, brief_hook, LUA_MASKCOUNT, BRIEF_INSTRUCTIONS);
    int status = lua_pcall(L, arguments, results, 0);
    lua_sethook(L, hook, mask, count);
    return status;
}

/* ---- the network ---- */

/** "example.com." and "[::1]" without their dot and brackets. */
static size_t trim_host(const char **host)
{
    size_t length = strlen(*host);
    if (length > 2 && **host == '[' && (*host)[length - 1] == ']') {
        ++*host;
        return length - 2;
    }
    return length > 1 && (*host)[length - 1] == '.' ? length - 1 : length;
}

/** Splits "HOST:PORT", "[::1]:PORT" or either without the port (0). */
static size_t split_entry(const char **entry, unsigned *port)
{
    const char *end = *entry + strlen(*entry), *colon = strrchr(*entry, ':');
    *port = 0;
    if (**entry == '[') {
        const char *bracket = strchr(*entry, ']');
        if (bracket && bracket[1] == ':')
            *port = (unsigned)strtoul(bracket + 2, NULL, 10);
        ++*entry;
        return (size_t)((bracket ? bracket : end) - *entry);
    }
    /* more than one colon: an address of IPv6 without brackets */
    if (colon && strchr(*entry, ':') == colon) {
        *port = (unsigned)strtoul(colon + 1, NULL, 10);
        end = colon;
    }
    return (size_t)(end - *entry);
}

/** "*.example.com" is every name below, not the name itself. */
static bool entry_allows(const char *entry, const char *host, size_t length, unsigned port)
{
    if (strncmp(entry, "unix:", 5) == 0)
        return strlen(entry) == length && memcmp(entry, host, length) == 0;
    unsigned wanted;
    size_t size = split_entry(&entry, &wanted);
    if (wanted != 0 && wanted != port)
        return false;
    if (size < 2 || entry[0] != '*' || entry[1] != '.')
        return size == length && strncasecmp(entry, host, size) == 0;
    size--;
    return length > size && strncasecmp(entry + 1, host + length - size, size) == 0;
}

const char *sl_refuse_connection(sl_core *core, const char *host, unsigned port)
{
    const char *const *entry = core->limits.hosts;
    if (!entry)
        return NULL;
    size_t length = host ? trim_host(&host) : 0;
    for (; host && *entry; entry++)
        if (entry_allows(*entry, host, length, port))
            return NULL;
    return "not allowed here: it is not among the hosts that the host has granted";
}

const char *sl_refuse_method(sl_core *core, const char *method)
{
    const char *const *entry = core->limits.methods;
    if (!entry)
        return NULL;
    for (; *entry; entry++)
        if (strcmp(*entry, method) == 0)
            return NULL;
    return "not allowed here: the method is not among those that the host has granted";
}

bool sl_count_request(sl_core *core)
{
    if (core->limits.requests && core->requests >= core->limits.requests)
        return false;
    core->requests++;
    return true;
}

bool sl_count_bytes(sl_core *core, size_t size)
{
    core->bytes += size;
    return !core->limits.bytes || core->bytes <= core->limits.bytes;
}

/* ---- the environment ---- */

const char *sl_environment_get(lua_State *L, const char *name)
{
    const sl_core *core = sl_core_find(L);
    const char *const *entry = core ? core->limits.environment : NULL;
    if (!entry)
        return getenv(name);
    for (; *entry; entry++)
        if (strcmp(*entry, name) == 0)
            return getenv(name);
    return NULL;
}
