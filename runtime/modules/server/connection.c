/* SPDX-License-Identifier: MIT */
/* A connection: bytes in, requests out, answers sent; its states, its time limits, its end. */
#include "connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    RECEIVE_SIZE = 65536,
    /** Bytes read and thrown away so that the client can read our last answer. */
    DISCARD_MAX = 1 << 20,
};

/* ---- plain sockets ---- */

static bool plain_open(sl_connection *c)
{
    (void)c;
    return true;
}

static ssize_t plain_receive(sl_connection *c, char *bytes, size_t size)
{
    return recv(c->io.fd, bytes, size, 0);
}

static ssize_t plain_send(sl_connection *c, const char *bytes, size_t length)
{
    return send(c->io.fd, bytes, length, MSG_NOSIGNAL);
}

static int plain_end(sl_connection *c)
{
    return shutdown(c->io.fd, SHUT_WR);
}

static void plain_close(sl_connection *c, bool in_order)
{
    (void)c, (void)in_order;
}

const sl_transport sl_transport_plain = {
    .open = plain_open,
    .receive = plain_receive,
    .send = plain_send,
    .end = plain_end,
    .close = plain_close,
};

/* ---- leaving ---- */

/** Parts the exchange from its connection; nobody's exchange is freed. */
static void exchange_detach(sl_exchange *x)
{
    x->connection = NULL;
    sl_timer_stop(&x->timer);
    if (!x->holder && !x->queued)
        sl_exchange_free(x);
}

/** The client of a request that nobody took yet has left. */
static void exchange_note_gone(sl_connection *c, const sl_exchange *x)
{
    sl_refusal outcome = {.status = 499, .duration = sl_now(c->server->core) - x->since};
    sl_refusal_note(c, &outcome, x->bytes, x->head.target.at + x->head.target.length + 1u);
}

void sl_connection_kill(sl_connection *c)
{
    sl_exchange *x = c->exchange;
    if (c->state == SL_CONNECTION_DEAD)
        return;
    c->in_order = c->state != SL_CONNECTION_BUSY && sl_bytes_length(&c->out) == 0 && !c->cut;
    c->state = SL_CONNECTION_DEAD;
    c->exchange = NULL;
    if (!x)
        return;
    if (x->holder)
        c->server->events->on_gone(x);
    else
        exchange_note_gone(c, x);
    exchange_detach(x);
}

static void connection_free(sl_connection *c)
{
    sl_server *server = c->server;
    sl_core *core = server->core;
    sl_timer_stop(&c->timer);
    (void)sl_io_watch(core, &c->io, 0);
    c->transport->close(c, c->in_order);
    close(c->io.fd);
    *c->previous = c->next;
    if (c->next)
        c->next->previous = c->previous;
    server->count--;
    sl_bytes_fini(core, &c->in);
    sl_bytes_fini(core, &c->out);
    sl_free(core, c);
    sl_server_has_room(server);
}

/* ---- what it waits for, and until when ---- */

static bool is_between_requests(const sl_connection *c)
{
    return c->state == SL_CONNECTION_HEAD && c->scan.position == 0;
}

/** Whether bytes of the body are expected, rather than held up by a handler that does not read. */
static bool wants_body(const sl_connection *c)
{
    const sl_exchange *x = c->exchange;
    if (!x || x->failure || sl_body_ended(&x->body))
        return false;
    return x->wants_all || sl_bytes_length(&x->content) < SL_HIGH_WATER;
}

/** The client holds its body back until it is told to go on, which is not its fault. */
static bool waits_for_continue(const sl_exchange *x)
{
    return x->head.expects_continue && !x->continued;
}

static bool wants_read(const sl_connection *c)
{
    if (c->ended)
        return false;
    if (c->state != SL_CONNECTION_BUSY)
        return true;
    if (c->exchange->failure)
        return c->discarded < DISCARD_MAX;
    if (!sl_body_ended(&c->exchange->body))
        return wants_body(c);
    return sl_bytes_length(&c->in) < SL_HIGH_WATER;
}

static int64_t min_time(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t connection_deadline(const sl_connection *c)
{
    const sl_server_limits *limits = &c->server->limits;
    int64_t deadline = INT64_MAX;
    if (sl_bytes_length(&c->out) || c->state == SL_CONNECTION_FLUSH)
        deadline = c->sent_at + limits->stall_time;
    if (c->state == SL_CONNECTION_HEAD) {
        bool idle = is_between_requests(c) && c->served;
        deadline = min_time(deadline, c->since + (idle ? limits->idle_time : limits->head_time));
    } else if (c->state == SL_CONNECTION_LINGER) {
        deadline = min_time(deadline, c->since + limits->linger_time);
    } else if (wants_body(c) && !waits_for_continue(c->exchange)) {
        deadline = min_time(deadline, c->stretch_at + limits->body_time);
    }
    return deadline;
}

/** The timer is moved only when it would fire too late: a busy connection seldom touches it. */
static void connection_arm(sl_connection *c)
{
    int64_t deadline = connection_deadline(c);
    if (deadline == INT64_MAX)
        return;
    if (!sl_timer_is_active(&c->timer) || c->timer.due > deadline)
        sl_timer_start(c->server->core, &c->timer, deadline);
}

static void connection_count(sl_connection *c)
{
    sl_server *server = c->server;
    bool working = c->state == SL_CONNECTION_BUSY || c->state == SL_CONNECTION_FLUSH ||
                   (c->state == SL_CONNECTION_HEAD && !is_between_requests(c));
    if (working == c->working)
        return;
    c->working = working;
    server->working += working ? 1u : UINT32_MAX;
    if (server->stopping && server->working == 0)
        server->events->on_drained(server);
}

static unsigned connection_events(const sl_connection *c)
{
    unsigned events = wants_read(c) ? SL_READ : 0u;
    if (sl_bytes_length(&c->out))
        events |= SL_WRITE;
    return c->crossed ? SL_READ | SL_WRITE : events;
}

/** When stopping, a connection between two requests has nothing more to say. */
static void connection_leave_when_stopping(sl_connection *c)
{
    if (c->server->stopping && is_between_requests(c) && sl_bytes_length(&c->out) == 0)
        sl_connection_kill(c);
}

void sl_connection_settle(sl_connection *c)
{
    connection_leave_when_stopping(c);
    if (c->state != SL_CONNECTION_DEAD) {
        unsigned events = connection_events(c);
        if (events != c->io.events && sl_io_watch(c->server->core, &c->io, events) < 0)
            sl_connection_kill(c);
    }
    connection_count(c);
    if (c->state == SL_CONNECTION_DEAD)
        connection_free(c);
    else
        connection_arm(c);
}

/* ---- sending ---- */

void sl_connection_append(sl_connection *c, const void *data, size_t length)
{
    if (c->state == SL_CONNECTION_DEAD)
        return;
    if (!sl_bytes_append(c->server->core, &c->out, data, length))
        sl_connection_kill(c);
}

static int connection_end(sl_connection *c)
{
    if (c->ended)
        return -1;
    return c->cut ? plain_end(c) : c->transport->end(c);
}

/** All is sent and no request will follow: ends our half, and waits for the other. */
static void connection_linger(sl_connection *c)
{
    int result = connection_end(c);
    if (result < 0 && !c->ended && errno == EAGAIN)
        return;
    if (result < 0) {
        sl_connection_kill(c);
        return;
    }
    c->state = SL_CONNECTION_LINGER;
    c->since = sl_now(c->server->core);
}

static void tell_room(sl_connection *c)
{
    sl_exchange *x = c->exchange;
    size_t limit = x && x->is_stream ? 1 : SL_HIGH_WATER / 2;
    if (x && x->wants_room && sl_bytes_length(&c->out) < limit) {
        x->wants_room = false;
        if (x->holder)
            c->server->events->on_room(x);
    }
}

void sl_connection_send(sl_connection *c)
{
    while (c->state != SL_CONNECTION_DEAD && sl_bytes_length(&c->out)) {
        ssize_t sent = c->transport->send(c, sl_bytes_front(&c->out), sl_bytes_length(&c->out));
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN) {
            sl_connection_kill(c);
            return;
        }
        if (c->io.events & SL_WRITE && sent < 0)
            return;
        c->sent_at = sl_now(c->server->core);
        if (sent < 0)
            return;
        sl_bytes_consume(c->server->core, &c->out, (size_t)sent);
        tell_room(c);
    }
    if (c->state == SL_CONNECTION_FLUSH)
        connection_linger(c);
}

/* ---- receiving ---- */

static void body_changed(sl_connection *c)
{
    if (c->exchange->holder)
        c->server->events->on_body(c->exchange);
}

static void body_fail(sl_connection *c, int status)
{
    c->exchange->failure = status;
    c->discarded = 0;
    body_changed(c);
}

static void body_take(sl_connection *c, const sl_body_step *step)
{
    sl_exchange *x = c->exchange;
    uint32_t room = UINT32_MAX - c->stretch_bytes;
    x->received += step->length;
    if (x->received > c->server->limits.max_body) {
        body_fail(c, 413);
        return;
    }
    if (waits_for_continue(x)) {
        x->continued = true;
        c->stretch_at = sl_now(c->server->core);
    }
    c->body_at = sl_now(c->server->core);
    c->stretch_bytes += step->length < room ? (uint32_t)step->length : room;
    if (!sl_bytes_append(c->server->core, &x->content, step->piece, step->length))
        sl_connection_kill(c);
}

/** Reads the body on in these bytes; returns how many it used. */
static size_t connection_body(sl_connection *c, const char *bytes, size_t length)
{
    size_t used = 0;
    sl_exchange *x = c->exchange;
    sl_body_result result = SL_BODY_MORE;
    while (c->state == SL_CONNECTION_BUSY && wants_body(c) && used < length) {
        sl_body_step step;
        result = sl_body_read(&x->body, bytes + used, length - used, &step);
        used += step.used;
        if (step.length)
            body_take(c, &step);
        if (result == SL_BODY_BAD)
            body_fail(c, 400);
    }
    if (c->state == SL_CONNECTION_BUSY && used)
        body_changed(c);
    return used;
}

/** Refuses the request whose head's bytes, as far as they came, these are. */
static void connection_refuse(sl_connection *c, int status, const char *line, size_t length)
{
    sl_refusal outcome = {.status = status, .duration = sl_now(c->server->core) - c->since};
    sl_reply_refuse(c, status, &outcome);
    sl_refusal_note(c, &outcome, line, length);
}

static void connection_request(sl_connection *c, const char *head, size_t length)
{
    int status;
    sl_exchange *x = sl_exchange_new(c, head, length, &status);
    c->scan = (sl_head_scan){0};
    if (!x) {
        connection_refuse(c, status, head, length);
        return;
    }
    c->exchange = x;
    c->state = SL_CONNECTION_BUSY;
    c->body_at = c->stretch_at = sl_now(c->server->core);
    c->stretch_bytes = 0;
    sl_exchange_enqueue(c->server, x);
}

/** Goes on with a head in these bytes; returns how many it used: none until it is complete. */
static size_t connection_head(sl_connection *c, const char *bytes, size_t length)
{
    if (is_between_requests(c))
        c->since = sl_now(c->server->core);
    int result = sl_head_scan_run(&c->scan, bytes, length);
    if (result == 0)
        return 0;
    uint32_t start = c->scan.start;
    if (result < 0) {
        connection_refuse(c, -result, bytes + start, c->scan.position - start);
        return 0;
    }
    connection_request(c, bytes + start, (size_t)result - start);
    return (size_t)result;
}

/** Uses what it can of these bytes; returns how much that was. */
static size_t connection_use(sl_connection *c, const char *bytes, size_t length)
{
    size_t used = 0;
    while (used < length) {
        size_t step = 0;
        if (c->state == SL_CONNECTION_HEAD)
            step = connection_head(c, bytes + used, length - used);
        else if (c->state == SL_CONNECTION_BUSY && c->exchange->failure)
            step = length - used;
        else if (c->state == SL_CONNECTION_BUSY)
            step = connection_body(c, bytes + used, length - used);
        if (step == 0)
            break;
        used += step;
    }
    bool open = c->state == SL_CONNECTION_HEAD || c->state == SL_CONNECTION_BUSY;
    return open ? used : length;
}

void sl_connection_resume(sl_connection *c)
{
    sl_core *core = c->server->core;
    size_t length = sl_bytes_length(&c->in);
    if (length)
        sl_bytes_consume(core, &c->in, connection_use(c, sl_bytes_front(&c->in), length));
}

static void connection_take_bytes(sl_connection *c, const char *bytes, size_t length)
{
    sl_core *core = c->server->core;
    if (c->state == SL_CONNECTION_BUSY && c->exchange->failure)
        c->discarded += (uint32_t)length;
    size_t used = 0;
    bool kept = sl_bytes_length(&c->in) > 0;
    if (!kept)
        used = connection_use(c, bytes, length);
    if (!sl_bytes_append(core, &c->in, bytes + used, length - used))
        sl_connection_kill(c);
    else if (kept)
        sl_connection_resume(c);
}

void sl_connection_go_on(sl_connection *c)
{
    if (wants_body(c)) {
        c->body_at = c->stretch_at = sl_now(c->server->core);
        c->stretch_bytes = 0;
    }
    sl_connection_resume(c);
}

/** The client sends no more: it has left, unless it only waits for the end of an answer. */
static void connection_ended(sl_connection *c)
{
    c->ended = true;
    if (c->state != SL_CONNECTION_FLUSH)
        sl_connection_kill(c);
}

static void connection_receive(sl_connection *c)
{
    char *scratch = c->server->scratch;
    ssize_t got = c->transport->receive(c, scratch, RECEIVE_SIZE);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got < 0) {
        sl_connection_kill(c);
    } else if (got == 0) {
        connection_ended(c);
    } else if (c->state >= SL_CONNECTION_FLUSH) {
        c->discarded += (uint32_t)got;
        if (c->discarded > DISCARD_MAX)
            sl_connection_kill(c);
    } else {
        connection_take_bytes(c, scratch, (size_t)got);
    }
}

void sl_connection_next(sl_connection *c, bool close)
{
    sl_exchange *x = c->exchange;
    c->exchange = NULL;
    exchange_detach(x);
    c->served = true;
    c->since = sl_now(c->server->core);
    if (close) {
        c->state = SL_CONNECTION_FLUSH;
        c->discarded = 0;
        sl_bytes_fini(c->server->core, &c->in);
    } else {
        c->state = SL_CONNECTION_HEAD;
    }
    sl_connection_send(c);
    if (c->state == SL_CONNECTION_HEAD)
        sl_connection_resume(c);
}

/* ---- entries from the loop ---- */

static void on_connection_ready(sl_io *io, unsigned events)
{
    sl_connection *c = (sl_connection *)(void *)((char *)io - offsetof(sl_connection, io));
    if (c->crossed)
        events = SL_WRITE | (wants_read(c) ? SL_READ : 0u);
    c->crossed = false;
    if (events & SL_WRITE)
        sl_connection_send(c);
    if (events & SL_READ && c->state != SL_CONNECTION_DEAD)
        connection_receive(c);
    sl_connection_settle(c);
}

void sl_connection_not_tls(sl_connection *c)
{
    c->transport->close(c, false);
    c->transport = &sl_transport_plain;
    connection_refuse(c, SL_NOT_TLS, "", 0);
}

/** A stretch of the body is over: it may go on, from its last byte, when enough has come. */
static void body_stretch(sl_connection *c, int64_t now)
{
    const sl_server_limits *limits = &c->server->limits;
    uint64_t least = (uint64_t)limits->body_rate * (uint64_t)limits->body_time / 1000000;
    if (now >= c->body_at + limits->body_time || c->stretch_bytes < least) {
        body_fail(c, 408);
        return;
    }
    c->stretch_at = c->body_at;
    c->stretch_bytes = 0;
}

static void connection_expired(sl_connection *c, int64_t now)
{
    if (sl_bytes_length(&c->out) && now >= c->sent_at + c->server->limits.stall_time)
        sl_connection_kill(c);
    else if (c->state == SL_CONNECTION_HEAD && !is_between_requests(c))
        connection_refuse(c, 408, sl_bytes_front(&c->in) + c->scan.start,
                          c->scan.position - c->scan.start);
    else if (c->state == SL_CONNECTION_BUSY)
        body_stretch(c, now);
    else
        sl_connection_kill(c);
}

static void on_connection_due(sl_timer *timer)
{
    sl_connection *c = (sl_connection *)(void *)((char *)timer - offsetof(sl_connection, timer));
    int64_t now = sl_now(c->server->core);
    if (now >= connection_deadline(c))
        connection_expired(c, now);
    sl_connection_settle(c);
}

bool sl_connection_open(sl_server *server, int fd)
{
    sl_connection *c = sl_alloc(server->core, sizeof *c);
    if (!c) {
        close(fd);
        return false;
    }
    memset(c, 0, sizeof *c);
    c->server = server;
    c->transport = server->transport;
    c->io.fd = fd;
    c->io.on_ready = on_connection_ready;
    c->timer.on_due = on_connection_due;
    c->since = c->sent_at = sl_now(server->core);
    if (!c->transport->open(c)) {
        close(fd);
        sl_free(server->core, c);
        return false;
    }
    c->next = server->connections;
    c->previous = &server->connections;
    if (c->next)
        c->next->previous = &c->next;
    server->connections = c;
    server->count++;
    sl_connection_settle(c);
    return true;
}
