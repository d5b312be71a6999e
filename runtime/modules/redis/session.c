/* SPDX-License-Identifier: MIT */
/* The life of a connection once its socket is there: bytes in, bytes out, the end. */
#include "private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_SIZE = 32768,
    /* Reads in one turn of the loop, so that a server that never stops does not hold it up. */
    MOST_READS = 16,
    /* Room for what is sent that is kept. */
    KEPT_OUTPUT = 1 << 20,
};

static ssize_t redis_receive(sl_redis *c, char *bytes, size_t size)
{
    return c->ssl ? sl_redis_tls_receive(c, bytes, size) : recv(c->io.fd, bytes, size, 0);
}

static ssize_t redis_send(sl_redis *c, const char *bytes, size_t length)
{
    if (c->ssl)
        return sl_redis_tls_send(c, bytes, length);
    return send(c->io.fd, bytes, length, MSG_NOSIGNAL);
}

/* ---- the end ---- */

void sl_redis_fail(sl_redis *c, const char *kind, const char *format, ...)
{
    if (c->state == SL_REDIS_CLOSED)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->failure, sizeof c->failure, format, arguments);
    va_end(arguments);
    c->failure_kind = kind;
    c->state = SL_REDIS_CLOSED;
    sl_lookup_stop(&c->lookup);
    sl_timer_stop(&c->connect);
    sl_timer_stop(&c->flush);
    if (c->ssl)
        sl_redis_tls_close(c);
    if (c->io.fd >= 0) {
        (void)sl_io_watch(c->core, &c->io, 0);
        close(c->io.fd);
        c->io.fd = -1;
    }
    sl_redis_requests_fail(c);
    sl_redis_bytes_free(c->core, &c->out);
}

void sl_redis_close(sl_redis *c, const char *text)
{
    sl_redis_fail(c, "ConnectError", "%s", text);
}

void sl_redis_delete(sl_redis *c)
{
    if (!c)
        return;
    sl_redis_close(c, "the connection is closed");
    sl_redis_requests_free(c);
    if (c->reader)
        redisReaderFree(c->reader);
    sl_redis_bytes_free(c->core, &c->greeting_reply);
    sl_free(c->core, c->addresses);
    sl_redis_server_release(c->server);
    sl_free(c->core, c);
}

/* ---- out ---- */

/** Sends from `*done` on; false where the rest must wait, or the connection failed. */
static bool redis_send_all(sl_redis *c, const sl_redis_bytes *bytes, size_t *done)
{
    while (*done < bytes->size) {
        ssize_t sent = redis_send(c, bytes->data + *done, bytes->size - *done);
        if (sent > 0)
            *done += (size_t)sent;
        else if (errno == EAGAIN)
            return false;
        else if (errno != EINTR) {
            sl_redis_fail(c, "ConnectError", "write: %s", strerror(errno));
            return false;
        }
    }
    return true;
}

static void redis_write(sl_redis *c)
{
    if (c->state == SL_REDIS_GREETING) {
        (void)redis_send_all(c, &c->server->greeting, &c->greeting_done);
    } else if (c->state == SL_REDIS_OPEN && redis_send_all(c, &c->out, &c->out_done)) {
        c->out_base += c->out.size;
        c->out.size = c->out_done = 0;
        if (c->out.capacity > KEPT_OUTPUT)
            sl_redis_bytes_free(c->core, &c->out);
    }
}

void sl_redis_watch(sl_redis *c)
{
    unsigned events = SL_READ;
    bool blocked =
        c->state == SL_REDIS_OPEN && c->out_done < c->out.size && !sl_timer_is_active(&c->flush);
    bool greets = c->state == SL_REDIS_GREETING && c->greeting_done < c->server->greeting.size;
    if (c->state == SL_REDIS_CLOSED)
        return;
    if (c->state == SL_REDIS_CONNECTING)
        events = SL_WRITE;
    else if (blocked || greets || c->tls_wants_write)
        events |= SL_WRITE;
    if (sl_io_watch(c->core, &c->io, events) < 0)
        sl_redis_fail(c, "ConnectError", "not enough memory to watch the socket");
}

static void on_redis_flush(sl_timer *timer)
{
    sl_redis *c = (sl_redis *)(void *)((char *)timer - offsetof(sl_redis, flush));
    redis_write(c);
    sl_redis_watch(c);
}

/* ---- in ---- */

static void redis_read(sl_redis *c)
{
    char bytes[READ_SIZE];
    for (int i = 0; i < MOST_READS; i++) {
        ssize_t got = redis_receive(c, bytes, sizeof bytes);
        if (got == 0) {
            sl_redis_fail(c, "ConnectError", "the server closed the connection");
            return;
        }
        if (got < 0 && errno != EINTR) {
            if (errno != EAGAIN)
                sl_redis_fail(c, "ConnectError", "read: %s", strerror(errno));
            return;
        }
        if (got > 0 && !sl_redis_reader_feed(c, bytes, (size_t)got))
            return;
        if (got > 0 && got < READ_SIZE && !c->ssl)
            return;
    }
}

void sl_redis_welcomed(sl_redis *c)
{
    c->state = SL_REDIS_OPEN;
    sl_timer_stop(&c->connect);
    if (c->out.size > 0)
        sl_timer_start(c->core, &c->flush, sl_now(c->core));
}

void sl_redis_connected(sl_redis *c)
{
    if (c->server->greeting_replies == 0) {
        sl_redis_welcomed(c);
        return;
    }
    c->state = SL_REDIS_GREETING;
    c->greeting_left = c->server->greeting_replies;
    redis_write(c);
}

static void on_redis_ready(sl_io *io, unsigned events)
{
    sl_redis *c = (sl_redis *)(void *)((char *)io - offsetof(sl_redis, io));
    if (c->state == SL_REDIS_CONNECTING) {
        sl_redis_connect_ready(c);
    } else if (c->state == SL_REDIS_HANDSHAKE) {
        if (sl_redis_tls_handshake(c) > 0)
            sl_redis_connected(c);
    } else {
        if (events & SL_WRITE)
            redis_write(c);
        if (c->state != SL_REDIS_CLOSED)
            redis_read(c);
    }
    sl_redis_watch(c);
}

/* ---- the face ---- */

sl_redis *sl_redis_open(sl_redis_server *server)
{
    sl_redis *c = sl_alloc_array(server->core, 1, sizeof *c);
    if (!c)
        return NULL;
    c->core = server->core;
    c->server = sl_redis_server_use(server);
    c->io.fd = -1;
    c->io.on_ready = on_redis_ready;
    c->flush.on_due = on_redis_flush;
    if (sl_redis_reader_open(c) < 0) {
        sl_redis_delete(c);
        return NULL;
    }
    sl_redis_connect_start(c);
    return c;
}

bool sl_redis_is_usable(const sl_redis *c)
{
    return c->state != SL_REDIS_CLOSED && !c->retired;
}

const char *sl_redis_state_name(const sl_redis *c)
{
    if (c->state == SL_REDIS_CLOSED)
        return "closed";
    if (c->retired)
        return "retired";
    return c->state == SL_REDIS_OPEN ? "open" : "connecting";
}

bool sl_redis_has_answered(const sl_redis *c)
{
    return c->answered;
}

size_t sl_redis_in_flight(const sl_redis *c)
{
    return c->in_flight;
}

const char *sl_redis_failure(const sl_redis *c, const char **text)
{
    *text = c->failure;
    return c->failure_kind;
}
