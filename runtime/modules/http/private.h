/* SPDX-License-Identifier: MIT */
/* What the files of the engine share; neither the binding nor a wire includes this. */
#ifndef SL_HTTP_PRIVATE_H
#define SL_HTTP_PRIVATE_H

#include "engine.h"
#include "proxy.h"
#include "target.h"
#include "wire.h"

struct http_list {
    sl_http_transfer *first, *last;
};

enum {
    /** Buffers that wait for the next answers; the one used last comes first, while it is hot. */
    HTTP_SPARE_BUFFERS = 64,
};

struct sl_http_engine {
    sl_core *core;
    sl_http_buffer spare[HTTP_SPARE_BUFFERS];
    size_t spare_count;
    sl_http_wire *wire;
    /** Made at the first name, or at once when servers were given. */
    sl_resolver *resolver;
    unsigned max_connections, max_per_host, max_waiting;
    sl_http_proxy http_proxy, https_proxy;
    char *no_proxy;
    /** By a unix socket: no name is resolved. */
    bool is_local;
    /** Transfers with a slot. */
    size_t active;
    size_t waiting_count;
    bool closing;
    /** Every transfer that has not been stopped is in one of these. */
    struct http_list waiting, running, finished;
    sl_http_targets targets;
};

/* engine.c */
void sl_http_list_move(sl_http_transfer *transfer, struct http_list *list);
/** Begins it now, or when there is a slot. */
void sl_http_admit(sl_http_transfer *transfer);
/** Ends a running or waiting transfer in this state; the wire has forgotten it. */
void sl_http_finish(sl_http_transfer *transfer, enum sl_http_state state);
/** Stops the wire and fails with what sl_http_failure_set has put down. */
void sl_http_abort(sl_http_transfer *transfer);

/* limits.c */
void sl_http_limits_start(sl_http_transfer *transfer);
/** The state has changed: another limit may be the next one. */
void sl_http_limits_update(sl_http_transfer *transfer);

/* transfer.c */
void sl_http_spare_free(sl_http_engine *engine);
void sl_http_transfer_release(sl_http_transfer *transfer);
const char *sl_http_phase(const sl_http_transfer *transfer);

#endif
