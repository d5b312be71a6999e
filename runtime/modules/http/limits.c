/* SPDX-License-Identifier: MIT */
/* The time limits of a transfer: one timer, set to whichever limit is the next. */
#include "private.h"

#include <inttypes.h>

/* A timer is moved only when it would fire too late: one that fires early looks again. So a
 * request that takes milliseconds starts its timer once and stops it once. */

static const char *const limit_names[SL_HTTP_LIMITS] = {
    [SL_HTTP_QUEUE] = "queue", [SL_HTTP_CONNECT] = "connect", [SL_HTTP_FIRST_BYTE] = "first_byte",
    [SL_HTTP_IDLE] = "idle",   [SL_HTTP_TOTAL] = "total",
};

/** The limit of the phase it is in, and since when that counts. */
static enum sl_http_limit limit_of_phase(const sl_http_transfer *transfer, int64_t *since)
{
    switch (transfer->state) {
    case SL_HTTP_QUEUED:
        *since = transfer->started;
        return SL_HTTP_QUEUE;
    case SL_HTTP_RESOLVING:
    case SL_HTTP_CONNECTING:
        *since = transfer->admitted;
        return SL_HTTP_CONNECT;
    case SL_HTTP_WAITING:
    case SL_HTTP_HEAD:
        *since = transfer->last_activity;
        return SL_HTTP_FIRST_BYTE;
    default:
        *since = transfer->last_activity;
        return SL_HTTP_IDLE;
    }
}

/** The next limit and when it is reached; INT64_MAX when there is none. */
static enum sl_http_limit limit_next(const sl_http_transfer *transfer, int64_t *due)
{
    int64_t since;
    enum sl_http_limit limit = limit_of_phase(transfer, &since);
    *due = INT64_MAX;
    /* a reader who takes his time is not the server's silence */
    bool counts = limit != SL_HTTP_IDLE || !transfer->paused;
    if (transfer->limits[limit] > 0 && counts)
        *due = since + transfer->limits[limit];
    int64_t total = transfer->limits[SL_HTTP_TOTAL];
    if (total > 0 && transfer->started + total < *due) {
        *due = transfer->started + total;
        limit = SL_HTTP_TOTAL;
    }
    return limit;
}

static void limit_expire(sl_http_transfer *transfer, enum sl_http_limit limit)
{
    double seconds = (double)transfer->limits[limit] / 1e6;
    const char *phase = sl_http_phase(transfer);
    uint64_t received = transfer->received;
    switch (limit) {
    case SL_HTTP_QUEUE:
        sl_http_failure_set(transfer, "TimeoutError", phase, "no free connection within %g s",
                            seconds);
        break;
    case SL_HTTP_CONNECT:
        sl_http_failure_set(transfer, "TimeoutError", phase,
                            transfer->state == SL_HTTP_RESOLVING ? "name not resolved within %g s"
                                                                 : "not connected within %g s",
                            seconds);
        break;
    case SL_HTTP_FIRST_BYTE:
        sl_http_failure_set(transfer, "TimeoutError", phase, "no answer within %g s", seconds);
        break;
    case SL_HTTP_IDLE:
        sl_http_failure_set(transfer, "TimeoutError", phase,
                            "no data for %g s, after %" PRIu64 " bytes", seconds, received);
        break;
    default:
        sl_http_failure_set(transfer, "TimeoutError", phase,
                            "not complete within %g s, %" PRIu64 " bytes so far", seconds,
                            received);
    }
    transfer->failure.limit = limit_names[limit];
    sl_http_abort(transfer);
}

static void limit_watch(sl_http_transfer *transfer, int64_t due)
{
    if (due == INT64_MAX)
        return;
    if (!sl_timer_is_active(&transfer->timer) || due < transfer->timer.due)
        sl_timer_start(transfer->engine->core, &transfer->timer, due);
}

static void limit_on_due(sl_timer *timer)
{
    sl_http_transfer *transfer =
        (sl_http_transfer *)((char *)timer - offsetof(sl_http_transfer, timer));
    int64_t due, now = sl_now(transfer->engine->core);
    enum sl_http_limit limit = limit_next(transfer, &due);
    if (due <= now) {
        limit_expire(transfer, limit);
        return;
    }
    limit_watch(transfer, due);
    if (transfer->expected == 0)
        return;
    if (transfer->expected > now) {
        limit_watch(transfer, transfer->expected);
        return;
    }
    transfer->expected = 0;
    transfer->late = true;
    if (transfer->on_change)
        transfer->on_change(transfer);
}

void sl_http_limits_update(sl_http_transfer *transfer)
{
    int64_t due;
    limit_next(transfer, &due);
    limit_watch(transfer, due);
}

void sl_http_transfer_expect(sl_http_transfer *transfer, int64_t due)
{
    transfer->expected = due;
    transfer->late = false;
    if (due != 0 && !sl_http_transfer_is_over(transfer))
        limit_watch(transfer, due);
}

void sl_http_limits_start(sl_http_transfer *transfer)
{
    transfer->timer.on_due = limit_on_due;
    sl_http_limits_update(transfer);
}
