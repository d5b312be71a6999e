/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes a connection of the server: arbitrary bytes in arbitrary pieces over a socket pair, with a
 * core that is played here, so that time moves and descriptors are ready when the input says so.
 *
 * The input's bytes are what the client sends; read from its end they also say what happens. Twice
 * the same bytes are served by a handler that reads and answers: in one piece, then in many. Both
 * must see the same requests. A third time everything happens at once: handlers that stop, clients
 * that leave, limits that expire. Nothing may leak.
 */
#include "modules/server/connection.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    TIMERS = 4,
    MAX_BODY = 5000,
};

/** The world: its clock, what is watched, what was seen. */
static struct {
    int64_t now;
    size_t blocks;
    sl_timer *timers[TIMERS];
    sl_io *io;
    int peer;
    sl_server server;
    sl_exchange *taken;
    /** A running hash of the requests, and how many. */
    uint64_t seen;
    unsigned requests;
} world;

/* ---- the core, as far as the server needs one ---- */

void *sl_alloc(sl_core *core, size_t size)
{
    (void)core;
    world.blocks++;
    return malloc(size);
}

void *sl_realloc(sl_core *core, void *block, size_t size)
{
    (void)core;
    world.blocks += block == NULL;
    return realloc(block, size);
}

void sl_free(sl_core *core, void *block)
{
    (void)core;
    world.blocks -= block != NULL;
    free(block);
}

int sl_io_watch(sl_core *core, sl_io *io, unsigned events)
{
    (void)core;
    io->events = events;
    if (io != &world.server.io)
        world.io = events ? io : NULL;
    return 0;
}

int64_t sl_now(sl_core *core)
{
    (void)core;
    return world.now;
}

int64_t sl_now_update(sl_core *core)
{
    (void)core;
    return world.now;
}

void sl_timer_stop(sl_timer *timer)
{
    for (int i = 0; i < TIMERS; i++) {
        if (world.timers[i] == timer)
            world.timers[i] = NULL;
    }
    timer->clock = NULL;
}

void sl_timer_start(sl_core *core, sl_timer *timer, int64_t due)
{
    (void)core;
    sl_timer_stop(timer);
    timer->due = due;
    timer->clock = (sl_clock *)(void *)timer;
    for (int i = 0; i < TIMERS; i++) {
        if (!world.timers[i]) {
            world.timers[i] = timer;
            return;
        }
    }
    abort();
}

static void pass_time(int64_t microseconds)
{
    world.now += microseconds;
    for (int i = 0; i < TIMERS; i++) {
        sl_timer *timer = world.timers[i];
        if (timer && timer->due <= world.now) {
            sl_timer_stop(timer);
            timer->on_due(timer);
        }
    }
}

/* ---- the handler ---- */

static void mix(const void *data, size_t length)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < length; i++)
        world.seen = (world.seen ^ bytes[i]) * 0x100000001b3u;
}

static void mix_head(const sl_exchange *x)
{
    const sl_head *head = &x->head;
    mix(head->method, strlen(head->method));
    mix(x->bytes + head->target.at, head->target.length);
    for (unsigned i = 0; i < head->count; i++) {
        assert(head->fields[i].name.length > 0);
        mix(x->bytes + head->fields[i].name.at, head->fields[i].name.length);
        mix(x->bytes + head->fields[i].value.at, head->fields[i].value.length);
    }
    mix(&head->keep_alive, sizeof head->keep_alive);
}

static void on_event(sl_server *server)
{
    (void)server;
}

static void on_exchange_event(sl_exchange *x)
{
    (void)x;
}

static void take_refusals(sl_server *server)
{
    for (sl_refusal *note; (note = sl_server_take_refusal(server));)
        sl_free(NULL, note);
}

static const sl_server_events events = {
    .on_refused = take_refusals,
    .on_request = on_event,
    .on_drained = on_event,
    .on_body = on_exchange_event,
    .on_room = on_exchange_event,
    .on_gone = on_exchange_event,
};

static void take(void)
{
    if (world.taken)
        return;
    world.taken = sl_server_take(&world.server);
    if (world.taken)
        world.taken->holder = &world;
}

static void drop(void)
{
    if (world.taken)
        sl_exchange_drop(world.taken);
    world.taken = NULL;
}

static void answer(sl_exchange *x, int status, int64_t length)
{
    if (!sl_exchange_begin(x, status))
        return;
    (void)sl_exchange_field(x, "X-A", 3, "b", 1);
    sl_exchange_end_head(x, length);
}

/** Reads the whole body, then answers: what every split of the same bytes must lead to. */
static void serve_plainly(void)
{
    for (take(); world.taken; take()) {
        sl_exchange *x = world.taken;
        sl_exchange_want(x, true);
        if (!sl_body_ended(&x->body) && !x->failure && x->connection)
            return;
        world.requests++;
        mix_head(x);
        mix(&x->failure, sizeof x->failure);
        if (sl_body_ended(&x->body))
            mix(sl_bytes_front(&x->content), sl_bytes_length(&x->content));
        answer(x, 200, 2);
        (void)sl_exchange_write(x, "ok", 2);
        sl_exchange_finish(x);
        drop();
    }
}

static void serve_anyhow(unsigned what)
{
    static const char filler[30000];
    take();
    sl_exchange *x = world.taken;
    if (!x)
        return;
    switch (what % 16) {
    case 0:
        sl_exchange_want(x, what & 16);
        break;
    case 1:
        sl_bytes_consume(x->core, &x->content, sl_bytes_length(&x->content));
        sl_exchange_consumed(x);
        break;
    case 2:
        answer(x, 200 + (int)(what & 16 ? 4 : 0), what & 32 ? -1 : (int64_t)sizeof filler);
        break;
    case 3:
        answer(x, 200, 5);
        (void)sl_exchange_write(x, "hello", 5);
        sl_exchange_finish(x);
        break;
    case 4:
        (void)sl_exchange_write(x, filler, sizeof filler);
        break;
    case 5:
        (void)sl_exchange_flush(x);
        break;
    case 6:
        sl_exchange_finish(x);
        break;
    case 7:
        sl_exchange_abort(x);
        break;
    case 8:
        drop();
        break;
    case 9:
        x->wants_room = true;
        break;
    case 10:
        if (sl_exchange_begin(x, 500) && sl_exchange_field(x, "A\n", 2, "b", 1))
            sl_exchange_rewind(x);
        break;
    case 11:
        if (sl_exchange_begin(x, 200)) {
            sl_exchange_end_head(x, -1);
            sl_exchange_hold(x, what & 16 ? 1000000 : 0);
        }
        break;
    case 12:
        if (x->is_stream)
            sl_exchange_write_data(x, filler, what & 16 ? sizeof filler : 5);
        break;
    case 13:
        (void)sl_exchange_flush_soon(x);
        x->wants_room = sl_exchange_is_full(x);
        break;
    case 14:
        sl_exchange_cut(x);
        break;
    default:
        sl_server_stop(&world.server);
    }
}

/* ---- the client ---- */

static void turn(unsigned ready)
{
    if (world.io && world.io->events & ready)
        world.io->on_ready(world.io, world.io->events & ready);
}

/** What the server sends is thrown away; the status of the last refusal is kept. */
static void receive(void)
{
    char bytes[65536];
    while (world.peer >= 0 && recv(world.peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
}

static void open_world(void)
{
    static const sl_server_limits limits = {
        .max_body = MAX_BODY,
        .max_connections = 2,
        .body_rate = 10,
        .head_time = 10000000,
        .body_time = 30000000,
        .idle_time = 60000000,
        .stall_time = 30000000,
        .linger_time = 2000000,
    };
    int pair[2];
    memset(&world, 0, sizeof world);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0)
        abort();
    world.peer = pair[1];
    int fd = open("/dev/null", O_RDONLY);
    if (fd < 0 || sl_server_open(&world.server, NULL, fd, &limits, &events) != 0)
        abort();
    world.server.keeps_refusals = true;
    sl_connection_open(&world.server, pair[0]);
}

static void close_world(void)
{
    sl_server_close(&world.server);
    drop();
    if (world.peer >= 0)
        close(world.peer);
    assert(world.blocks == 0);
    assert(world.server.count == 0 && world.server.working == 0);
}

static void send_all(const uint8_t *data, size_t size, size_t piece)
{
    for (size_t at = 0; at < size; at += piece) {
        size_t length = size - at < piece ? size - at : piece;
        ssize_t sent = send(world.peer, data + at, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            break;
        turn(SL_READ);
        serve_plainly();
        turn(SL_WRITE);
        receive();
    }
    for (int i = 0; i < 4; i++) {
        turn(SL_READ);
        serve_plainly();
    }
}

static void run_chaos(const uint8_t *data, size_t size)
{
    size_t at = 0, control = size;
    while (control > 0 && world.peer >= 0) {
        unsigned what = data[--control];
        size_t length = 1 + (what & 63) * (what & 64 ? 64 : 1);
        if (length > size - at)
            length = size - at;
        if (length && send(world.peer, data + at, length, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
            at += length;
        turn(what & 1 ? SL_READ | SL_WRITE : SL_READ);
        if (what & 128)
            serve_anyhow(what >> 1);
        if (what % 7 == 0)
            pass_time((int64_t)what * 200000);
        if (what % 5 == 0)
            receive();
        if (what == 0xfb) {
            close(world.peer);
            world.peer = -1;
        }
        turn(SL_READ | SL_WRITE);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 60000)
        return 0;
    open_world();
    send_all(data, size, size + 1);
    uint64_t seen = world.seen;
    unsigned requests = world.requests;
    close_world();
    size_t pieces[] = {1, 1 + (size ? data[size - 1] : 0)};
    for (int i = size > 2000; i < 2; i++) {
        open_world();
        send_all(data, size, pieces[i]);
        if (world.seen != seen || world.requests != requests) {
            fprintf(stderr, "%u requests whole, %u in pieces\n", requests, world.requests);
            abort();
        }
        close_world();
    }
    open_world();
    run_chaos(data, size);
    close_world();
    return 0;
}
