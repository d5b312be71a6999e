/* SPDX-License-Identifier: MIT */
/*
 * Between the engine and what speaks on the wire: a wire fills one table and reports through the
 * functions below. The engine has resolved the name and holds the time limits.
 */
#ifndef SL_HTTP_WIRE_H
#define SL_HTTP_WIRE_H

#include "engine.h"

typedef struct sl_http_wire sl_http_wire;

struct sl_http_wire {
    /** Connects and sends. Texts of the transfer hold until it is over. 0, or -1 without memory. */
    int (*start)(sl_http_wire *wire, sl_http_transfer *transfer);
    /** Forgets the transfer and closes its connection at once. */
    void (*stop)(sl_http_wire *wire, sl_http_transfer *transfer);
    /** The read side was paused and may go on, or there is more of an upload. */
    void (*resume)(sl_http_wire *wire, sl_http_transfer *transfer);
    /** Whether all of the request's body was sent, so that it is read no more. */
    bool (*has_sent)(sl_http_wire *wire, const sl_http_transfer *transfer);
    /** Connections open now. */
    size_t (*count)(sl_http_wire *wire);
    /** Does now what the first TLS connection would. */
    void (*warm_up)(sl_http_wire *wire);
    /** No transfer runs any more. */
    void (*close)(sl_http_wire *wire);
};

/** libcurl's multi. NULL without memory. */
sl_http_wire *sl_http_curl_open(sl_core *core, const sl_http_engine_options *options);

enum sl_http_verdict {
    SL_HTTP_ABORT = -1,
    SL_HTTP_PAUSE = 0,
    SL_HTTP_GO_ON = 1,
    /** Taken, but no more than what is decompressed already until resume. */
    SL_HTTP_PAUSE_AFTER = 2,
};

/** The connection is there (TLS too) and the request is about to be sent. Aborts when that is a
 * second time (a kept connection was dead) and the first may have been executed. */
enum sl_http_verdict sl_http_on_ready(sl_http_transfer *transfer);
/** One line of the head with its line end, an empty one at its end. */
enum sl_http_verdict sl_http_on_head(sl_http_transfer *transfer, const char *line, size_t size);
/** A piece of the body; paused: nothing of it was taken, give it again after resume. */
enum sl_http_verdict sl_http_on_body(sl_http_transfer *transfer, const char *data, size_t size);
/** For the next piece of an upload: bytes copied, 0 at its end, -1: none now, wait for resume. */
long sl_http_on_upload(sl_http_transfer *transfer, char *data, size_t size);
/** The answer is complete; the wire has forgotten the transfer. */
void sl_http_on_end(sl_http_transfer *transfer);
/** It has failed; the wire has forgotten the transfer. A failure set before (abort) stays. */
void sl_http_on_failure(sl_http_transfer *transfer, const char *kind, const char *phase,
                        const char *message);
/** Puts down why, before the verdict SL_HTTP_ABORT; the first one stays. */
void sl_http_failure_set(sl_http_transfer *transfer, const char *kind, const char *phase,
                         const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
