/* SPDX-License-Identifier: MIT */
/* The life of an exchange: made of a head, queued, taken, its body read, given back. */
#include "../socket/address.h"
#include "connection.h"

#include <string.h>
#include <sys/socket.h>

sl_exchange *sl_exchange_new(sl_connection *c, const char *head, size_t length, int *status)
{
    sl_core *core = c->server->core;
    sl_head parsed;
    *status = sl_head_parse(&parsed, c->server->fields, head, length, c->scan.fields);
    if (*status == 0 && !parsed.chunked && parsed.content_length > c->server->limits.max_body)
        *status = 413;
    if (*status)
        return NULL;
    size_t fields_size = parsed.count * sizeof *parsed.fields;
    sl_exchange *x = sl_alloc(core, sizeof *x + fields_size + length);
    if (!x) {
        *status = 503;
        return NULL;
    }
    *x = (sl_exchange){.core = core, .connection = c, .head = parsed, .since = sl_now(core)};
    if (parsed.request_id.length == 0) {
        x->id_prefix = c->server->id_prefix;
        x->id_number = ++c->server->ids;
    }
    x->head.fields = (sl_field *)(void *)(x + 1);
    x->bytes = (char *)(x + 1) + fields_size;
    memcpy(x->head.fields, parsed.fields, fields_size);
    memcpy(x->bytes, head, length);
    sl_body_init(&x->body, x->head.chunked, x->head.content_length);
    return x;
}

size_t sl_request_id_format(uint32_t prefix, uint64_t number, char text[SL_REQUEST_ID_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    char *at = text;
    for (int shift = 28; shift >= 0; shift -= 4)
        *at++ = digits[prefix >> shift & 15];
    *at++ = '-';
    int shift = 60;
    while (shift > 0 && number >> shift == 0)
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        *at++ = digits[number >> shift & 15];
    *at = '\0';
    return (size_t)(at - text);
}

const char *sl_exchange_id(const sl_exchange *x, char text[SL_REQUEST_ID_SIZE], size_t *length)
{
    *length = x->head.request_id.length;
    if (*length)
        return x->bytes + x->head.request_id.at;
    *length = sl_request_id_format(x->id_prefix, x->id_number, text);
    return text;
}

void sl_exchange_enqueue(sl_server *server, sl_exchange *x)
{
    x->queued = true;
    if (server->last)
        server->last->next = x;
    else
        server->first = x;
    server->last = x;
    server->events->on_request(server);
}

void sl_exchange_free(sl_exchange *x)
{
    sl_bytes_fini(x->core, &x->content);
    sl_free(x->core, x->held);
    sl_free(x->core, x);
}

void sl_exchange_abort(sl_exchange *x)
{
    sl_connection *c = x->connection;
    if (!c)
        return;
    sl_connection_kill(c);
    sl_connection_settle(c);
}

void sl_exchange_drop(sl_exchange *x)
{
    sl_connection *c = x->connection;
    x->holder = NULL;
    if (c) {
        sl_connection_kill(c); /* frees the exchange, which nobody holds */
        sl_connection_settle(c);
    } else {
        sl_exchange_free(x);
    }
}

sl_exchange *sl_server_take(sl_server *server)
{
    while (server->first) {
        sl_exchange *x = server->first;
        server->first = x->next;
        if (!server->first)
            server->last = NULL;
        x->next = NULL;
        x->queued = false;
        if (x->connection)
            return x;
        sl_exchange_free(x);
    }
    return NULL;
}

/** Tells a client that holds its body back to send it. */
static void send_continue(sl_exchange *x)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!x->head.expects_continue || x->continued || x->started)
        return;
    x->continued = true;
    sl_connection_append(x->connection, text, sizeof text - 1);
    sl_connection_send(x->connection);
}

void sl_exchange_want(sl_exchange *x, bool all)
{
    sl_connection *c = x->connection;
    if (!c || sl_body_ended(&x->body) || x->failure)
        return;
    bool more = all && !x->wants_all && sl_bytes_length(&x->content) >= SL_HIGH_WATER;
    x->wants_all = x->wants_all || all;
    bool continues = x->head.expects_continue && !x->continued;
    send_continue(x);
    if (c->state != SL_CONNECTION_DEAD && (more || continues))
        sl_connection_go_on(c);
    sl_connection_settle(c);
}

void sl_exchange_consumed(sl_exchange *x)
{
    sl_connection *c = x->connection;
    if (!c || sl_body_ended(&x->body) || x->failure)
        return;
    /* Only a body that was held up needs a push. */
    if (sl_bytes_length(&c->in) == 0 && c->io.events & SL_READ)
        return;
    sl_connection_go_on(c);
    sl_connection_settle(c);
}

bool sl_exchange_peer(const sl_exchange *x, char *text, size_t size)
{
    return x->connection && sl_connection_peer(x->connection, text, size);
}

bool sl_connection_peer(const sl_connection *c, char *text, size_t size)
{
    sl_address address = {.length = sizeof address.storage};
    char formatted[SL_ADDRESS_TEXT];
    if (getpeername(c->io.fd, (struct sockaddr *)&address.storage, &address.length) != 0)
        return false;
    sl_address_format(&address, formatted);
    if (strlen(formatted) >= size)
        return false;
    memcpy(text, formatted, strlen(formatted) + 1);
    return true;
}
