/* SPDX-License-Identifier: MIT */
/* An answer in pieces: a head that waits for the first of them, when they are sent, and what is
 * said in a silence. */
#include "connection.h"

#include <string.h>

enum {
    /** Pieces that follow each other faster than this, in microseconds, are sent together... */
    STREAM_CLOSE_BY = 100,
    /** ...until they are so many bytes. */
    STREAM_PACKET = 16384,
};

/* ---- the head ---- */

void sl_exchange_unhold(sl_exchange *x)
{
    sl_free(x->core, x->held);
    x->held = NULL;
    sl_timer_stop(&x->timer);
    x->is_stream = x->deferred = false;
    x->silence = 0;
}

void sl_exchange_release(sl_exchange *x)
{
    sl_connection *c = x->connection;
    if (!c || !x->held)
        return;
    x->started = true;
    sl_connection_append(c, x->held, x->held_length);
    sl_free(x->core, x->held);
    x->held = NULL;
    if (c->state == SL_CONNECTION_DEAD)
        sl_connection_settle(c);
}

/* ---- silence ---- */

static void stream_break_silence(sl_exchange *x)
{
    static const char comment[] = ": x\n";
    if (!x->at_line_start || sl_exchange_backlog(x) > 0)
        return;
    (void)sl_exchange_write(x, comment, sizeof comment - 1);
    (void)sl_exchange_flush(x);
}

static void stream_listen(sl_exchange *x)
{
    int64_t now = sl_now(x->core);
    if (x->silence == 0)
        return;
    if (now >= x->written_at + x->silence) {
        stream_break_silence(x);
        x->written_at = now;
    }
    if (x->connection)
        sl_timer_start(x->core, &x->timer, x->written_at + x->silence);
}

/** Its holder is there: whoever drops it stops the timer. */
static void on_stream_due(sl_timer *timer)
{
    sl_exchange *x = (sl_exchange *)(void *)((char *)timer - offsetof(sl_exchange, timer));
    if (x->deferred) {
        x->deferred = false;
        x->flushed_at = sl_now(x->core);
        (void)sl_exchange_flush(x);
    }
    if (x->connection)
        stream_listen(x);
}

void sl_exchange_hold(sl_exchange *x, int64_t silence)
{
    sl_connection *c = x->connection;
    if (!c)
        return;
    size_t from = c->out.start + x->mark;
    x->held_length = (uint32_t)(c->out.end - from);
    x->held = sl_alloc(x->core, x->held_length);
    if (!x->held) {
        sl_exchange_abort(x);
        return;
    }
    memcpy(x->held, c->out.data + from, x->held_length);
    x->started = false;
    sl_exchange_rewind(x);
    if (sl_exchange_backlog(x) == 0)
        sl_bytes_fini(x->core, &c->out);
    x->is_stream = x->at_line_start = true;
    x->timer.on_due = on_stream_due;
    x->written_at = sl_now(x->core);
    x->silence = x->bodyless ? 0 : silence;
    stream_listen(x);
}

/* ---- when pieces are sent ---- */

bool sl_exchange_flush_soon(sl_exchange *x)
{
    size_t backlog = sl_exchange_backlog(x);
    if (backlog == 0)
        return x->connection != NULL;
    int64_t now = sl_now_update(x->core);
    if (!x->is_stream || backlog >= STREAM_PACKET || now - x->flushed_at >= STREAM_CLOSE_BY) {
        x->flushed_at = now;
        return sl_exchange_flush(x);
    }
    if (!x->deferred) {
        x->deferred = true;
        sl_timer_start(x->core, &x->timer, now);
    }
    return true;
}

bool sl_exchange_is_full(const sl_exchange *x)
{
    return x->is_stream && sl_exchange_backlog(x) > 0 && x->connection->io.events & SL_WRITE;
}

/* ---- its early end ---- */

void sl_exchange_cut(sl_exchange *x)
{
    sl_connection *c = x->connection;
    if (!c)
        return;
    c->cut = true;
    sl_connection_next(c, true);
    sl_connection_settle(c);
}
