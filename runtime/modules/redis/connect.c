/* SPDX-License-Identifier: MIT */
/* The way to a server: its name, its addresses one after the other, TCP or a unix socket, TLS. */
#include "modules/socket/address.h"
#include "private.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    /* Of a peer that is silent: seconds until it is asked, between questions, and how many. */
    KEEPALIVE_IDLE = 30,
    KEEPALIVE_INTERVAL = 10,
    KEEPALIVE_COUNT = 3,
};

/* ---- the server ---- */

static bool copy_text(sl_core *core, char **copy, const char *text)
{
    size_t size = text ? strlen(text) + 1 : 0;
    *copy = NULL;
    if (!text)
        return true;
    *copy = sl_alloc(core, size);
    if (*copy)
        memcpy(*copy, text, size);
    return *copy != NULL;
}

sl_redis_server *sl_redis_server_new(sl_core *core, const sl_redis_options *options,
                                     const char **kind, char *error, size_t size)
{
    *kind = "ConnectError";
    snprintf(error, size, "not enough memory");
    sl_redis_server *server = sl_alloc_array(core, 1, sizeof *server);
    if (!server)
        return NULL;
    server->core = core;
    server->users = 1;
    server->port = options->port;
    server->connect_time = options->connect_time;
    server->max_reply = options->max_reply;
    const char *name = options->server_name ? options->server_name : options->host;
    if (!copy_text(core, &server->host, options->host) ||
        !copy_text(core, &server->path, options->path) ||
        !copy_text(core, &server->server_name, name)) {
        sl_redis_server_release(server);
        return NULL;
    }
    if (!options->tls)
        return server;
    *kind = "TLSError";
    server->tls = sl_redis_tls_new(core, options, error, size);
    if (!server->tls) {
        sl_redis_server_release(server);
        return NULL;
    }
    return server;
}

void sl_redis_server_greet(sl_redis_server *server, sl_redis_bytes *greeting, unsigned count)
{
    server->greeting = *greeting;
    server->greeting_replies = count;
    *greeting = (sl_redis_bytes){0};
}

sl_redis_server *sl_redis_server_use(sl_redis_server *server)
{
    server->users++;
    return server;
}

void sl_redis_server_release(sl_redis_server *server)
{
    if (!server || --server->users > 0)
        return;
    sl_resolver_close(server->resolver);
    sl_redis_tls_delete(server->tls);
    if (server->greeting.data) /* it may hold a password */
        explicit_bzero(server->greeting.data, server->greeting.size);
    sl_redis_bytes_free(server->core, &server->greeting);
    sl_free(server->core, server->host);
    sl_free(server->core, server->path);
    sl_free(server->core, server->server_name);
    sl_free(server->core, server);
}

/* ---- one address ---- */

static void set_socket_options(int fd)
{
    int on = 1, idle = KEEPALIVE_IDLE, interval = KEEPALIVE_INTERVAL, count = KEEPALIVE_COUNT;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static void redis_start_session(sl_redis *c)
{
    if (!c->server->tls) {
        sl_redis_connected(c);
        return;
    }
    c->state = SL_REDIS_HANDSHAKE;
    if (sl_redis_tls_open(c) < 0)
        sl_redis_fail(c, "TLSError", "not enough memory");
    else if (sl_redis_tls_handshake(c) > 0)
        sl_redis_connected(c);
}

static void close_socket(sl_redis *c)
{
    if (c->io.fd < 0)
        return;
    (void)sl_io_watch(c->core, &c->io, 0);
    close(c->io.fd);
    c->io.fd = -1;
}

/** 0, or the errno for which this address will not do. */
static int connect_address(sl_redis *c, const sl_address *address)
{
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    if (address->storage.ss_family != AF_UNIX)
        set_socket_options(fd);
    c->io.fd = fd;
    c->state = SL_REDIS_CONNECTING;
    if (connect(fd, (const struct sockaddr *)&address->storage, address->length) == 0) {
        redis_start_session(c);
    } else if (errno != EINPROGRESS) {
        int error = errno;
        close_socket(c);
        return error;
    }
    sl_redis_watch(c);
    return 0;
}

/* ---- one after the other ---- */

/** Takes the next of "192.0.2.1,[2001:db8::1]"; NULL at the end. */
static char *take_address(sl_redis *c)
{
    char *from = c->next_address;
    if (!from)
        return NULL;
    char *comma = strchr(from, ',');
    c->next_address = comma ? comma + 1 : NULL;
    if (comma)
        *comma = '\0';
    size_t length = strlen(from);
    if (from[0] == '[' && length > 1) {
        from[length - 1] = '\0';
        from++;
    }
    return from;
}

/** Each address gets an equal share of the time that is left. */
static void start_share(sl_redis *c)
{
    int64_t now = sl_now_update(c->core), left = c->connect_due - now, shares = 1;
    for (const char *rest = c->next_address; rest; rest = strchr(rest, ',')) {
        shares++;
        rest++;
    }
    sl_timer_start(c->core, &c->connect, now + (left > 0 ? left / shares : 0));
}

static void connect_next(sl_redis *c, int error)
{
    char *text;
    while ((text = take_address(c))) {
        sl_address address;
        start_share(c);
        if (sl_address_set(&address, text, (long)c->server->port))
            continue;
        error = connect_address(c, &address);
        if (error == 0)
            return;
    }
    sl_redis_fail(c, "ConnectError", "connect: %s", strerror(error));
}

void sl_redis_connect_ready(sl_redis *c)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->io.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0) {
        redis_start_session(c);
        return;
    }
    close_socket(c);
    connect_next(c, error);
}

static const char *const step_names[] = {
    [SL_REDIS_RESOLVING] = "resolving the name",
    [SL_REDIS_CONNECTING] = "connecting",
    [SL_REDIS_HANDSHAKE] = "the TLS handshake",
    [SL_REDIS_GREETING] = "the answer to the greeting",
};

static void on_connect_due(sl_timer *timer)
{
    sl_redis *c = (sl_redis *)(void *)((char *)timer - offsetof(sl_redis, connect));
    if (c->state == SL_REDIS_CONNECTING && c->next_address) {
        close_socket(c);
        connect_next(c, ETIMEDOUT);
        return;
    }
    sl_redis_fail(c, "TimeoutError", "the limit of %g s for connecting passed at %s",
                  (double)c->server->connect_time / 1e6, step_names[c->state]);
}

/* ---- its name ---- */

static void redis_resolved(sl_redis *c)
{
    if (!c->lookup.addresses) {
        sl_redis_fail(c, "ConnectError", "resolve %s: %s", c->server->host, c->lookup.failure);
        return;
    }
    if (!copy_text(c->core, &c->addresses, c->lookup.addresses)) {
        sl_redis_fail(c, "ConnectError", "not enough memory");
        return;
    }
    c->next_address = c->addresses;
    connect_next(c, EADDRNOTAVAIL);
}

static void on_redis_lookup(sl_lookup *lookup)
{
    redis_resolved((sl_redis *)(void *)((char *)lookup - offsetof(sl_redis, lookup)));
}

static void redis_resolve(sl_redis *c)
{
    sl_redis_server *server = c->server;
    const char *reason = NULL;
    if (!server->resolver)
        server->resolver = sl_resolver_open(c->core, &(sl_resolver_options){0}, &reason);
    if (!server->resolver) {
        sl_redis_fail(c, "ConnectError", "%s", reason);
        return;
    }
    c->lookup.on_done = on_redis_lookup;
    if (sl_lookup_start(server->resolver, &c->lookup, server->host))
        redis_resolved(c);
}

void sl_redis_connect_start(sl_redis *c)
{
    const sl_redis_server *server = c->server;
    sl_address address;
    int64_t now = sl_now_update(c->core);
    c->connect.on_due = on_connect_due;
    c->connect_due = now + server->connect_time;
    sl_timer_start(c->core, &c->connect, c->connect_due);
    if (server->path) {
        char text[SL_ADDRESS_TEXT + 8];
        snprintf(text, sizeof text, "unix:%s", server->path);
        const char *wrong = sl_address_parse(&address, text);
        int error = wrong ? ENAMETOOLONG : connect_address(c, &address);
        if (error != 0)
            sl_redis_fail(c, "ConnectError", "connect: %s", strerror(error));
    } else if (sl_address_set(&address, server->host, (long)server->port) == NULL) {
        int error = connect_address(c, &address);
        if (error != 0)
            sl_redis_fail(c, "ConnectError", "connect: %s", strerror(error));
    } else {
        redis_resolve(c);
    }
}
