/* SPDX-License-Identifier: MIT */
/* What an answer, its failure and its times become in Lua. */
#include "answer_lua.h"

#include <string.h>

static void http_set_seconds(lua_State *L, const char *name, int64_t microseconds)
{
    lua_pushnumber(L, (lua_Number)microseconds / 1e6);
    lua_setfield(L, -2, name);
}

/** What a record begins with; the head as it came follows. */
typedef struct http_facts {
    sl_http_timing timing;
    uint64_t received;
    int remote_port;
    char remote_address[sizeof((sl_http_transfer *)0)->remote_address];
} http_facts;

static void http_take_facts(const sl_http_transfer *transfer, http_facts *facts)
{
    sl_http_transfer_timing(transfer, &facts->timing);
    facts->received = transfer->received;
    facts->remote_port = transfer->remote_port;
    memcpy(facts->remote_address, transfer->remote_address, sizeof facts->remote_address);
}

static void http_show_facts(lua_State *L, const http_facts *facts)
{
    const sl_http_timing *timing = &facts->timing;
    lua_createtable(L, 0, 2);
    lua_createtable(L, 0, 8);
    http_set_seconds(L, "queue", timing->queue);
    http_set_seconds(L, "resolve", timing->resolve);
    http_set_seconds(L, "connect", timing->connect);
    http_set_seconds(L, "tls", timing->tls);
    http_set_seconds(L, "first_byte", timing->first_byte);
    http_set_seconds(L, "total", timing->total);
    lua_pushboolean(L, timing->reused);
    lua_setfield(L, -2, "reused");
    lua_pushinteger(L, (lua_Integer)facts->received);
    lua_setfield(L, -2, "bytes_in");
    lua_setfield(L, -2, "timing");
    if (facts->remote_address[0]) {
        bool v6 = strchr(facts->remote_address, ':') != NULL;
        lua_pushfstring(L, v6 ? "[%s]:%d" : "%s:%d", facts->remote_address, facts->remote_port);
        lua_setfield(L, -2, "remote_address");
    }
}

void sl_http_push_facts(lua_State *L, const sl_http_transfer *transfer)
{
    http_facts facts;
    http_take_facts(transfer, &facts);
    http_show_facts(L, &facts);
}

static void http_set_text(lua_State *L, const char *name, const char *text)
{
    if (!text)
        return;
    lua_pushstring(L, text);
    lua_setfield(L, -2, name);
}

int sl_http_push_failure(lua_State *L, const sl_http_transfer *transfer)
{
    const sl_http_failure *failure = &transfer->failure;
    bool stopped = transfer->state != SL_HTTP_FAILED;
    if (!stopped && !failure->kind)
        return luaL_error(L, "not enough memory");
    lua_pushnil(L);
    lua_createtable(L, 0, 8);
    http_set_text(L, "kind", stopped ? "TruncatedStream" : failure->kind);
    http_set_text(L, "message", stopped ? "the response was closed" : failure->message);
    http_set_text(L, "phase", stopped ? "body" : failure->phase);
    http_set_text(L, "limit", failure->limit);
    http_set_text(L, "code", failure->code);
    http_set_text(L, "operation", transfer->method);
    http_set_text(L, "object", transfer->label);
    lua_pushboolean(L, stopped || failure->maybe_executed);
    lua_setfield(L, -2, "maybe_executed");
    sl_http_push_facts(L, transfer);
    lua_setfield(L, -2, "facts");
    return 2;
}

static bool http_is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/** Pushes name and value of a line of the head; false for what is no field. */
static bool http_push_field(lua_State *L, const char *line, const char *end)
{
    const char *colon = memchr(line, ':', (size_t)(end - line));
    if (!colon || colon == line)
        return false;
    const char *value = colon + 1;
    while (value < end && http_is_blank(*value))
        value++;
    while (end > value && http_is_blank(end[-1]))
        end--;
    lua_pushlstring(L, line, (size_t)(colon - line));
    lua_pushlstring(L, value, (size_t)(end - value));
    return true;
}

/** Behind the next line end. */
static const char *line_end(const char *at, const char *end)
{
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    return stop ? stop + 1 : end;
}

/* ---- records ---- */

void sl_http_push_record(lua_State *L, const sl_http_transfer *transfer)
{
    http_facts facts;
    memset(&facts, 0, sizeof facts); /* what stands between the fields goes into the string too */
    http_take_facts(transfer, &facts);
    const sl_http_buffer *head = &transfer->head;
    luaL_Buffer record;
    char *out = luaL_buffinitsize(L, &record, sizeof facts + head->size);
    memcpy(out, &facts, sizeof facts);
    memcpy(out + sizeof facts, head->data, head->size);
    luaL_pushresultsize(&record, sizeof facts + head->size);
}

/** The head of the record that is the first argument. */
static const char *check_record(lua_State *L, http_facts *facts, const char **end)
{
    size_t size;
    const char *record = luaL_checklstring(L, 1, &size);
    luaL_argcheck(L, size >= sizeof *facts, 1, "what an answer left expected");
    memcpy(facts, record, sizeof *facts);
    facts->remote_address[sizeof facts->remote_address - 1] = '\0';
    *end = record + size;
    return record + sizeof *facts;
}

int sl_http_record_facts(lua_State *L)
{
    http_facts facts;
    const char *end;
    check_record(L, &facts, &end);
    http_show_facts(L, &facts);
    return 1;
}

int sl_http_record_reason(lua_State *L)
{
    http_facts facts;
    const char *end, *at = check_record(L, &facts, &end), *stop = line_end(at, end);
    while (stop > at && http_is_blank(stop[-1]))
        stop--;
    const char *space = memchr(at, ' ', (size_t)(stop - at));
    const char *reason = space && stop - space > 5 ? space + 5 : stop;
    lua_pushlstring(L, reason, (size_t)(stop - reason));
    return 1;
}

int sl_http_record_fields(lua_State *L)
{
    http_facts facts;
    const char *end, *at = check_record(L, &facts, &end), *next;
    lua_createtable(L, 16, 0);
    lua_Integer count = 0;
    for (at = line_end(at, end); at < end; at = next) {
        next = line_end(at, end);
        if (!http_push_field(L, at, next))
            continue;
        count += 2;
        lua_rawseti(L, -3, count);
        lua_rawseti(L, -2, count - 1);
    }
    return 1;
}
