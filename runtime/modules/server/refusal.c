/* SPDX-License-Identifier: MIT */
/* The requests that ended before a handler saw them: a note of each, for the access log. */
#include "connection.h"

#include <string.h>

enum {
    /** Notes kept while nobody takes them; more are only counted. */
    REFUSALS_MAX = 1024,
    /** Of a path that is noted. */
    REFUSAL_PATH_MAX = 512,
};

/** The word that begins at `*at` and ends before one of `ends`; empty where no such end came. */
static size_t refusal_word(const char *line, size_t length, size_t at, const char *ends)
{
    for (size_t i = at; i < length; i++) {
        if (strchr(ends, line[i]) && line[i])
            return i - at;
    }
    return 0;
}

/** The path of a target, which may be absolute: at least "/". */
static const char *refusal_path(const char *target, size_t *length)
{
    const char *end = target + *length;
    if (*length == 0 || *target == '/' || *target == '*')
        return target;
    const char *host = memchr(target, ':', *length);
    const char *path =
        host && end - host > 3 ? memchr(host + 3, '/', (size_t)(end - host - 3)) : NULL;
    *length = path ? (size_t)(end - path) : 1;
    return path ? path : "/";
}

static void refusal_add(sl_server *server, sl_refusal *refusal)
{
    refusal->next = NULL;
    if (server->last_refusal)
        server->last_refusal->next = refusal;
    else
        server->first_refusal = refusal;
    server->last_refusal = refusal;
    server->refusals++;
    server->events->on_refused(server);
}

/** Memory for a note, or NULL where there is no room. */
static sl_refusal *refusal_new(sl_server *server, size_t text_length)
{
    sl_refusal *refusal = NULL;
    if (server->refusals < REFUSALS_MAX)
        refusal = sl_alloc(server->core, sizeof *refusal + text_length);
    if (!refusal) {
        server->refusals_lost++;
        return NULL;
    }
    return refusal;
}

void sl_refusal_note(sl_connection *c, const sl_refusal *outcome, const char *line, size_t length)
{
    if (!c->server->keeps_refusals)
        return;
    size_t method = refusal_word(line, length, 0, " ");
    size_t target = method ? refusal_word(line, length, method + 1, " ?") : 0;
    const char *path = refusal_path(line + (method ? method + 1 : 0), &target);
    if (target > REFUSAL_PATH_MAX)
        target = REFUSAL_PATH_MAX;
    sl_refusal *refusal = refusal_new(c->server, method + target);
    if (!refusal)
        return;
    *refusal = *outcome;
    if (!sl_connection_peer(c, refusal->remote, sizeof refusal->remote))
        refusal->remote[0] = '\0';
    refusal->method_length = (uint16_t)method;
    refusal->path_length = (uint16_t)target;
    memcpy(refusal->text, line, method);
    if (target)
        memcpy(refusal->text + method, path, target);
    refusal_add(c->server, refusal);
}

sl_refusal *sl_server_take_refusal(sl_server *server)
{
    sl_refusal *refusal = server->first_refusal;
    if (!refusal)
        return NULL;
    server->first_refusal = refusal->next;
    if (!server->first_refusal)
        server->last_refusal = NULL;
    server->refusals--;
    return refusal;
}
