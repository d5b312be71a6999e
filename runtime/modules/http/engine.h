/* SPDX-License-Identifier: MIT */
/*
 * HTTP requests as a small C interface: what the binding sees, whatever speaks on the wire.
 *
 * An engine admits transfers (limits in total and per host), resolves names, enforces the time
 * limits and keeps the buffers; a wire (wire.h) carries them. Nothing here calls Lua or raises:
 * `on_change` tells the owner that a transfer has moved on.
 *
 * Process-wide: libcurl is initialised once, at the first engine, and never cleaned up. libcurl
 * sets no signal handler here (CURLOPT_NOSIGNAL): SIGPIPE is the host's to ignore.
 */
#ifndef SL_HTTP_ENGINE_H
#define SL_HTTP_ENGINE_H

#include "core/core.h"
#include "modules/resolver/resolver.h"

typedef struct sl_http_engine sl_http_engine;
typedef struct sl_http_target sl_http_target;
typedef struct sl_http_transfer sl_http_transfer;

/** Zeroed means the defaults. Everything is copied. */
typedef struct sl_http_engine_options {
    /** Authorities in PEM; NULL: Debian's bundle. Read when TLS is first used. */
    const char *ca_file;
    /** Requests at once in all, and to one host and port; 0: as many as come. */
    unsigned max_connections, max_per_host;
    /** Requests that may wait for a slot, beyond it they fail with QueueFull; 0: as many as come.
     */
    unsigned max_waiting;
    /** A certificate of ours and its key in PEM, for every server that asks. */
    const char *certificate, *key, *key_password;
    /** Proxies of http and https requests, and the hosts without one: see proxy.h. */
    const char *http_proxy, *https_proxy, *no_proxy;
    /** Connects to this socket, whatever the host of the URL is. */
    const char *unix_path;
    /** HTTP/2 where a TLS server offers it. */
    bool http2;
    /** See sl_resolver_options. */
    sl_resolver_options resolver;
} sl_http_engine_options;

/** NULL on failure; `reason` then is a static text. */
sl_http_engine *sl_http_engine_open(sl_core *core, const sl_http_engine_options *options,
                                    const char **reason);
/** Every transfer fails with ConnectError "the client was closed". Takes NULL. */
void sl_http_engine_close(sl_http_engine *engine);

/** Does now what the first TLS connection would: reads the authorities, about 20 ms. */
void sl_http_engine_warm_up(sl_http_engine *engine);

typedef struct sl_http_stats {
    /** Open connections; of them without a request; requests that wait for a slot. */
    size_t open, idle, waiting;
    /** Requests that have a slot. */
    size_t active;
} sl_http_stats;

void sl_http_engine_stats(const sl_http_engine *engine, sl_http_stats *stats);

enum sl_http_limit {
    SL_HTTP_QUEUE,
    SL_HTTP_CONNECT,
    SL_HTTP_FIRST_BYTE,
    SL_HTTP_IDLE,
    SL_HTTP_TOTAL,
    SL_HTTP_LIMITS,
};

typedef struct sl_http_field {
    const char *name, *value;
    size_t name_size, value_size;
} sl_http_field;

/** What many requests have alike. */
typedef struct sl_http_settings {
    /** The body of the answer is read in pieces, with back-pressure. */
    bool streamed;
    /** Check certificate and host name. */
    bool verify;
    /** Ask for a compressed body and undo what libcurl can; `max_response` counts what comes out.
     */
    bool decompress;
    /** NULL: the engine's. */
    const char *ca_file;
    /** Bytes of the answer's body; above it the transfer fails. 0: no limit. */
    uint64_t max_response;
    /** Microseconds; 0: no limit. */
    int64_t limits[SL_HTTP_LIMITS];
} sl_http_settings;

/** Pointers hold during sl_http_transfer_start only, but for `body`: until the transfer ends. */
typedef struct sl_http_request {
    const char *method;
    const char *url;
    size_t url_size;
    const sl_http_field *fields;
    size_t field_count;
    /** NULL without one. */
    const char *body;
    size_t body_size;
    /** The body comes by sl_http_transfer_send instead. */
    bool upload;
    const sl_http_settings *settings;
} sl_http_request;

enum sl_http_state {
    /** Zeroed, or stopped by its owner. */
    SL_HTTP_IDLE_STATE,
    SL_HTTP_QUEUED,
    SL_HTTP_RESOLVING,
    SL_HTTP_CONNECTING,
    /** Sent, or being sent; no byte of the answer yet. */
    SL_HTTP_WAITING,
    SL_HTTP_HEAD,
    SL_HTTP_BODY,
    SL_HTTP_DONE,
    SL_HTTP_FAILED,
};

/** Texts but `message` are static. */
typedef struct sl_http_failure {
    /** "ConnectError", ...; NULL: no memory. */
    const char *kind;
    /** "queue", "resolve", "connect", "tls", "send", "first_byte", "head", "body". */
    const char *phase;
    /** Of a TimeoutError: which. */
    const char *limit;
    /** "RESPONSE_TOO_LARGE", "HEAD_TOO_LARGE", or NULL. */
    const char *code;
    /** The request, or a part of it, was sent. */
    bool maybe_executed;
    /** Last, as of sl_http_transfer. */
    char message[192];
} sl_http_failure;

/** Microseconds of each phase, 0 where there was none; total up to the end, or up to now. */
typedef struct sl_http_timing {
    int64_t queue, resolve, connect, tls, first_byte, total;
    /** The connection had served before. */
    bool reused;
} sl_http_timing;

typedef struct sl_http_buffer {
    char *data;
    /** Bytes from `data` on; of them taken already; room. */
    size_t size, taken, capacity;
} sl_http_buffer;

/** One request and its answer, embedded in its owner; zero it before its first use. */
struct sl_http_transfer {
    /* set by the owner */
    /** Called from the loop when the state, the buffer or the room for a body has changed. It may
     * not stop, start or free a transfer. */
    void (*on_change)(sl_http_transfer *transfer);

    /* read by the owner */
    enum sl_http_state state;
    bool head_complete;
    /** The read side stands still until sl_http_transfer_taken. */
    bool paused;
    /** What sl_http_transfer_expect allowed has passed; until it is called again. */
    bool late;
    int status;
    /** Status line and header lines, each with its CRLF. */
    sl_http_buffer head;
    /** What has come of the body and was not taken. */
    sl_http_buffer body;
    /** Bytes of the body so far. */
    uint64_t received;
    char method[24];
    /** The other end; empty before there was one. */
    char remote_address[46];
    int remote_port;

    /* the engine's */
    /** NULL while there is nothing to give back. */
    sl_http_engine *engine;
    /** Until it is over, as are the two below. */
    sl_http_target *target;
    /** The engine's; NULL: straight to the target. */
    const struct sl_http_proxy *proxy;
    /** The header lines, "Name: value", each with a NUL behind it. */
    sl_http_buffer lines;
    char *ca_file;
    size_t line_count;
    sl_http_transfer *next, *previous;
    struct http_list *list;
    /** Private to the wire. */
    void *wire;
    sl_lookup lookup;
    sl_timer timer;
    int64_t limits[SL_HTTP_LIMITS];
    /** Until when a reader waits; 0: for as long as it takes. */
    int64_t expected;
    int64_t started, admitted, resolved, ready, first_byte, last_activity, ended;
    int64_t connect_time, tls_time;
    uint64_t max_response;
    /** Bytes of a streamed body that may be ahead of its reader. */
    size_t high_water;
    /** Of the answer's body, where its head says so. */
    uint64_t length;
    const char *request_body;
    size_t request_body_size;
    sl_http_buffer upload;
    /** The body is compressed and the wire undoes that. */
    bool is_packed;
    bool streamed, verify, decompress, reused, has_slot, is_upload, upload_ended, upload_starved,
        has_content_type, has_accept_encoding, has_user_agent, has_length;
    /** It asks for an event stream: little at a time, for long. */
    bool wants_events;

    /* the texts, last: sl_http_transfer_reset need not touch them */
    sl_http_failure failure;
    /** "http://host/path": the URL without user, password, query and fragment; cut when long. */
    char label[160];
};

/**
 * Starts a transfer. Returns NULL, or why the request is not one (static text): then nothing has
 * started. Whatever happens later is told by the state; it may be SL_HTTP_FAILED at once.
 */
const char *sl_http_transfer_start(sl_http_engine *engine, sl_http_transfer *transfer,
                                   const sl_http_request *request);
/** Cancels what runs (its connection closes at once) and frees the buffers. Idempotent. */
void sl_http_transfer_stop(sl_http_transfer *transfer);
/** Makes one that is over fit for another start. */
void sl_http_transfer_reset(sl_http_transfer *transfer);
/** The owner needs `head` no more: of a stream, which may stay for hours, it is freed, and so is
 * what the request was made of. True when the request's `body` is needed no more, either. */
bool sl_http_transfer_head_taken(sl_http_transfer *transfer);
/** Bytes of `body` were taken by the owner; lets a paused read side go on. */
void sl_http_transfer_taken(sl_http_transfer *transfer, size_t size);
/** A reader waits for more until then, microseconds as of sl_now; 0: for as long as it takes. Past
 * it the transfer goes on, `late`, and on_change is called. */
void sl_http_transfer_expect(sl_http_transfer *transfer, int64_t due);
/** More of the request's body. Returns 1 taken, 0 no room now (wait for on_change), -1 no memory.
 */
int sl_http_transfer_send(sl_http_transfer *transfer, const char *data, size_t size);
void sl_http_transfer_send_end(sl_http_transfer *transfer);
bool sl_http_transfer_is_over(const sl_http_transfer *transfer);
void sl_http_transfer_timing(const sl_http_transfer *transfer, sl_http_timing *timing);

#endif
