/* SPDX-License-Identifier: MIT */
/* Accepting connections: how many at once, what happens when descriptors run out, and the end. */
#include "connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ACCEPT_BATCH = 64,
    SCRATCH_SIZE = 65536,
    /** Without descriptors or memory: 100 ms until the next try. */
    ACCEPT_PAUSE = 100000,
};

static void accept_pause(sl_server *server)
{
    (void)sl_io_watch(server->core, &server->io, 0);
    sl_timer_start(server->core, &server->retry, sl_now(server->core) + ACCEPT_PAUSE);
}

/** False when the loop shall come back another time. */
static bool accept_one(sl_server *server)
{
    int on = 1;
    int fd = accept4(server->io.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        return sl_connection_open(server, fd);
    }
    if (errno == EINTR || errno == ECONNABORTED)
        return true;
    if (errno != EAGAIN)
        accept_pause(server);
    return false;
}

static void on_listener_ready(sl_io *io, unsigned events)
{
    sl_server *server = (sl_server *)(void *)((char *)io - offsetof(sl_server, io));
    (void)events;
    for (int i = 0; i < ACCEPT_BATCH && server->count < server->limits.max_connections; i++) {
        if (!accept_one(server))
            break;
    }
    if (server->count >= server->limits.max_connections) {
        server->full = true;
        (void)sl_io_watch(server->core, &server->io, 0);
    }
}

static void accept_again(sl_server *server)
{
    if (sl_io_watch(server->core, &server->io, SL_READ) < 0)
        accept_pause(server);
}

void sl_server_has_room(sl_server *server)
{
    if (server->full && server->io.fd >= 0) {
        server->full = false;
        accept_again(server);
    }
}

static void on_accept_retry(sl_timer *timer)
{
    accept_again((sl_server *)(void *)((char *)timer - offsetof(sl_server, retry)));
}

int sl_server_open(sl_server *server, sl_core *core, int fd, const sl_server_limits *limits,
                   const sl_server_events *events)
{
    memset(server, 0, sizeof *server);
    server->core = core;
    server->events = events;
    server->transport = &sl_transport_plain;
    server->limits = *limits;
    server->io.fd = fd;
    server->io.on_ready = on_listener_ready;
    server->retry.on_due = on_accept_retry;
    server->scratch = sl_alloc(core, SCRATCH_SIZE);
    if (server->scratch && sl_io_watch(core, &server->io, SL_READ) == 0)
        return 0;
    sl_free(core, server->scratch);
    server->scratch = NULL;
    server->io.fd = -1;
    close(fd);
    return -1;
}

static void stop_listening(sl_server *server)
{
    if (server->io.fd < 0)
        return;
    sl_timer_stop(&server->retry);
    (void)sl_io_watch(server->core, &server->io, 0);
    close(server->io.fd);
    server->io.fd = -1;
}

void sl_server_stop(sl_server *server)
{
    stop_listening(server);
    if (server->stopping)
        return;
    server->stopping = true;
    for (sl_connection *c = server->connections, *next; c; c = next) {
        next = c->next;
        sl_connection_settle(c);
    }
    if (server->working == 0)
        server->events->on_drained(server);
}

void sl_server_close(sl_server *server)
{
    if (!server->scratch)
        return;
    stop_listening(server);
    server->stopping = true;
    while (server->connections) {
        sl_connection *c = server->connections;
        sl_connection_kill(c);
        sl_connection_settle(c);
    }
    (void)sl_server_take(server); /* frees them all: none has a connection left */
    sl_free(server->core, server->scratch);
    server->scratch = NULL;
}
