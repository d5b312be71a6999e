/* SPDX-License-Identifier: MIT */
/* Requests: their bytes on the way out, their order, their time limits, and those given up. */
#include "private.h"

#include <stdio.h>
#include <string.h>

enum {
    /* Requests that a connection keeps for the next ones, and how much of their replies' memory. */
    MOST_SPARE = 256,
    SPARE_CAPACITY = 4096,
};

static sl_redis_request *request_of_timer(sl_timer *timer)
{
    return (sl_redis_request *)(void *)((char *)timer - offsetof(sl_redis_request, timer));
}

/* ---- lists ---- */

static void redis_list_add(sl_redis_list *list, sl_redis_request *request)
{
    request->next = NULL;
    request->previous = list->last;
    if (list->last)
        list->last->next = request;
    else
        list->first = request;
    list->last = request;
}

static void redis_list_remove(sl_redis_list *list, sl_redis_request *request)
{
    if (request->previous)
        request->previous->next = request->next;
    else
        list->first = request->next;
    if (request->next)
        request->next->previous = request->previous;
    else
        list->last = request->previous;
    request->next = request->previous = NULL;
}

/* ---- what a request is made of ---- */

/** A type, a number and the end of a line. */
static bool add_head(sl_core *core, sl_redis_bytes *bytes, char type, size_t number)
{
    char head[24];
    size_t at = sizeof head;
    head[--at] = '\n';
    head[--at] = '\r';
    do
        head[--at] = (char)('0' + number % 10);
    while (number /= 10);
    head[--at] = type;
    return sl_redis_bytes_add(core, bytes, head + at, sizeof head - at);
}

void sl_redis_argument(sl_core *core, sl_redis_bytes *bytes, const char *word, size_t length)
{
    if (!bytes->data)
        return;
    if (!add_head(core, bytes, '$', length) || !sl_redis_bytes_add(core, bytes, word, length) ||
        !sl_redis_bytes_add(core, bytes, "\r\n", 2))
        sl_redis_bytes_free(core, bytes);
}

void sl_redis_command(sl_core *core, sl_redis_bytes *bytes, size_t count)
{
    if (!add_head(core, bytes, '*', count))
        sl_redis_bytes_free(core, bytes);
}

/* ---- memory ---- */

static void redis_request_free(sl_redis_request *request)
{
    sl_redis *c = request->connection;
    sl_timer_stop(&request->timer);
    if (c->spare_count >= MOST_SPARE || request->reply.capacity > SPARE_CAPACITY)
        sl_redis_bytes_free(c->core, &request->reply);
    if (c->spare_count >= MOST_SPARE) {
        sl_free(c->core, request);
        return;
    }
    request->reply.size = 0;
    request->next = c->spare;
    c->spare = request;
    c->spare_count++;
}

static sl_redis_request *redis_request_alloc(sl_redis *c)
{
    sl_redis_request *request = c->spare;
    if (!request)
        return sl_alloc_array(c->core, 1, sizeof *request);
    sl_redis_bytes reply = request->reply;
    c->spare = request->next;
    c->spare_count--;
    memset(request, 0, sizeof *request);
    request->reply = reply;
    return request;
}

void sl_redis_requests_free(sl_redis *c)
{
    while (c->ended.first) {
        sl_redis_request *request = c->ended.first;
        redis_list_remove(&c->ended, request);
        redis_request_free(request);
    }
    while (c->spare) {
        sl_redis_request *request = c->spare;
        c->spare = request->next;
        sl_redis_bytes_free(c->core, &request->reply);
        sl_free(c->core, request);
    }
    c->spare_count = 0;
}

/* ---- ending ---- */

/** Out of the queue; kept for its caller, or freed where that is gone. */
static void redis_request_unqueue(sl_redis_request *request)
{
    sl_redis *c = request->connection;
    request->sent = sl_redis_is_sent(c, request);
    redis_list_remove(&c->pending, request);
    request->queued = false;
    c->in_flight--;
    sl_timer_stop(&request->timer);
    if (request->held)
        redis_list_add(&c->ended, request);
    else
        redis_request_free(request);
}

/** Nobody waits for it any more. */
static void redis_request_settle(sl_redis_request *request, enum sl_redis_outcome outcome)
{
    sl_redis *c = request->connection;
    request->sent = sl_redis_is_sent(c, request);
    request->outcome = outcome;
    request->waits = false;
    c->waiting--;
    sl_timer_stop(&request->timer);
}

/** It ends, as whoever waits for it is told. */
static void redis_request_end(sl_redis_request *request, enum sl_redis_outcome outcome)
{
    bool waits = request->waits;
    if (waits)
        redis_request_settle(request, outcome);
    redis_request_unqueue(request);
    if (waits && request->on_end)
        request->on_end(request);
}

/** Takes the bytes of a request that has not begun to leave out of what is to be sent. */
static void redis_request_unsend(sl_redis_request *request)
{
    sl_redis *c = request->connection;
    uint64_t length = request->end - request->begin;
    char *from = c->out.data + (request->begin - c->out_base);
    memmove(from, from + length, c->out.size - (size_t)(request->end - c->out_base));
    c->out.size -= (size_t)length;
    for (sl_redis_request *later = request->next; later; later = later->next) {
        later->begin -= length;
        later->end -= length;
    }
}

/** A retired connection closes when nobody waits any more. */
static void redis_close_if_done(sl_redis *c)
{
    if (c->retired && c->waiting == 0 && c->state != SL_REDIS_CLOSED)
        sl_redis_fail(c, "ConnectError", "the server gave no sign of life");
}

/** What has not left does not leave; the reply to the rest will be thrown away. */
static void redis_request_give_up(sl_redis_request *request, enum sl_redis_outcome outcome)
{
    redis_request_settle(request, outcome);
    if (request->sent)
        return;
    redis_request_unsend(request);
    redis_request_unqueue(request);
}

static void on_request_due(sl_timer *timer)
{
    sl_redis_request *request = request_of_timer(timer);
    sl_redis *c = request->connection;
    /* A server that has sent nothing in all this time may be gone: those who wait may wait on, but
     * nothing new goes there. */
    if (sl_redis_is_sent(c, request) && c->heard == request->heard)
        sl_redis_retire(c);
    redis_request_give_up(request, SL_REDIS_TIMED_OUT);
    if (request->on_end)
        request->on_end(request);
    redis_close_if_done(c);
}

void sl_redis_requests_fail(sl_redis *c)
{
    while (c->pending.first)
        redis_request_end(c->pending.first, SL_REDIS_FAILED);
}

void sl_redis_requests_reply(sl_redis *c)
{
    sl_redis_request *first = c->pending.first;
    c->answered = true;
    if (--first->replies > 0)
        return;
    redis_request_end(first, SL_REDIS_ANSWERED);
    redis_close_if_done(c);
}

void sl_redis_retire(sl_redis *c)
{
    c->retired = true;
    redis_close_if_done(c);
}

/* ---- the face ---- */

sl_redis_bytes *sl_redis_output(sl_redis *c)
{
    return &c->out;
}

sl_redis_request *sl_redis_request_new(sl_redis *c, unsigned replies)
{
    sl_redis_request *request = redis_request_alloc(c);
    if (!request)
        return NULL;
    request->connection = c;
    request->replies = replies;
    request->heard = c->heard;
    request->begin = c->out_base + c->out.size;
    request->timer.on_due = on_request_due;
    request->held = request->waits = true;
    return request;
}

int sl_redis_submit(sl_redis_request *request, int64_t time)
{
    sl_redis *c = request->connection;
    if (!c->out.data) { /* and with it what others had there: they must not wait for nothing */
        redis_request_free(request);
        sl_redis_fail(c, "ConnectError", "not enough memory for what is to be sent");
        return -1;
    }
    request->end = c->out_base + c->out.size;
    redis_list_add(&c->pending, request);
    request->queued = true;
    c->in_flight++;
    c->waiting++;
    if (time > 0)
        sl_timer_start(c->core, &request->timer, sl_now_update(c->core) + time);
    if (c->state == SL_REDIS_OPEN && !sl_timer_is_active(&c->flush))
        sl_timer_start(c->core, &c->flush, sl_now(c->core));
    return 0;
}

void sl_redis_request_release(sl_redis_request *request)
{
    sl_redis *c = request->connection;
    request->on_end = NULL;
    request->held = false;
    if (!request->queued) {
        redis_list_remove(&c->ended, request);
        redis_request_free(request);
    } else if (request->waits) {
        redis_request_give_up(request, SL_REDIS_WAITS);
    }
    redis_close_if_done(c);
}

void sl_redis_request_forget(sl_redis_request *request)
{
    if (request->queued && request->waits)
        redis_request_settle(request, SL_REDIS_WAITS);
    sl_redis_request_release(request);
}
