/* SPDX-License-Identifier: MIT */
/*
 * A connection to Redis on the core's loop: RESP2, any number of requests in flight, in order.
 *
 * hiredis reads the replies; the socket, the time limits and the queue are here, because hiredis
 * 0.14 has neither TLS nor a limit for connecting, and frees its context by itself.
 *
 * A connection never connects twice: once closed it stays so. An engine without lua.h.
 */
#ifndef SL_REDIS_H
#define SL_REDIS_H

#include "core/core.h"

/** Where to connect, and how; shared by connections, which count as its users. */
typedef struct sl_redis_server sl_redis_server;
/** One connection. */
typedef struct sl_redis sl_redis;

/** Bytes that grow. Zeroed is empty. */
typedef struct sl_redis_bytes {
    char *data;
    size_t size, capacity;
} sl_redis_bytes;

/** What sl_redis_server_new is made of; texts are copied. */
typedef struct sl_redis_options {
    /** A name or an IP address, and a port; or the path of a unix socket. */
    const char *host, *path;
    unsigned port;
    /** TLS, its certificate checked, the authorities in PEM (NULL: Debian's), our own certificate
     * and key or NULL, the name that the server's certificate must have (NULL: the host). */
    bool tls, verify;
    const char *ca_file, *certificate, *key, *server_name;
    /** Microseconds for name, TCP, TLS and greeting together. */
    int64_t connect_time;
    /** Bytes of one reply; more is a failure. */
    size_t max_reply;
} sl_redis_options;

/** NULL with a kind and a text in `error` where TLS cannot be set up, or without memory. */
sl_redis_server *sl_redis_server_new(sl_core *core, const sl_redis_options *options,
                                     const char **kind, char *error, size_t size);
/** Commands that each connection sends first, and how many; their replies must be no errors. Takes
 * the bytes over. */
void sl_redis_server_greet(sl_redis_server *server, sl_redis_bytes *greeting, unsigned count);
sl_redis_server *sl_redis_server_use(sl_redis_server *server);
/** One user less; the last one frees it. Takes NULL. */
void sl_redis_server_release(sl_redis_server *server);

/* ---- one connection ---- */

/** How a request ended. */
enum sl_redis_outcome {
    SL_REDIS_WAITS,
    SL_REDIS_ANSWERED,
    /** The connection failed: see sl_redis_failure. */
    SL_REDIS_FAILED,
    /** Its own time limit passed. */
    SL_REDIS_TIMED_OUT,
};

/** One command, or several that go together. Made by sl_redis_request_new; it belongs to its caller
 * until sl_redis_request_release, and to its connection as long as a reply may come. */
typedef struct sl_redis_request sl_redis_request;
struct sl_redis_request {
    sl_redis *connection;
    /** Called once from the loop at the end; the caller's. */
    void (*on_end)(sl_redis_request *request);
    void *user;
    enum sl_redis_outcome outcome;
    /** Whether any of its bytes left: then the server may have done it. */
    bool sent;
    /** The replies, as records: see sl_redis_record. */
    sl_redis_bytes reply;
    /* the rest is the connection's */
    sl_timer timer;
    uint64_t begin, end; /* of its bytes in all that the connection sends */
    uint64_t heard;      /* what the connection had received when this was sent */
    unsigned replies;    /* that are still to come */
    bool held;           /* by its caller, until the release */
    bool waits;          /* somebody wants its replies */
    bool queued;
    sl_redis_request *next, *previous;
};

/** Starts to connect; never NULL but without memory. A failure shows in the requests. */
sl_redis *sl_redis_open(sl_redis_server *server);
/** Ends those in flight as failed, `text` as the cause (static). Idempotent. */
void sl_redis_close(sl_redis *connection, const char *text);
/** Closes once nobody waits for a reply any more, and takes no more requests. */
void sl_redis_retire(sl_redis *connection);
/** Closes, and frees it with the requests that nobody released. Takes NULL. */
void sl_redis_delete(sl_redis *connection);

/** Whether it takes requests. */
bool sl_redis_is_usable(const sl_redis *connection);
/** "connecting", "open", "retired", "closed". */
const char *sl_redis_state_name(const sl_redis *connection);
/** Whether the server has answered anything but the greeting. */
bool sl_redis_has_answered(const sl_redis *connection);
/** How many requests wait for their replies, abandoned ones too. */
size_t sl_redis_in_flight(const sl_redis *connection);
/** Why it is closed: the kind of the error and its text; for "RedisError" the server's own. NULL
 * while it is not. */
const char *sl_redis_failure(const sl_redis *connection, const char **text);

/**
 * A request whose bytes follow by sl_redis_command and sl_redis_argument; then sl_redis_submit.
 * @return NULL without memory.
 */
sl_redis_request *sl_redis_request_new(sl_redis *connection, unsigned replies);
/**
 * Sends it with the next turn of the loop.
 * @param time microseconds until it ends as timed out; 0: no limit.
 * @return -1 without memory; it is released then.
 */
int sl_redis_submit(sl_redis_request *request, int64_t time);
/** Its caller wants nothing more of it. What has not left is not sent; the reply of the rest is
 * thrown away when it comes. */
void sl_redis_request_release(sl_redis_request *request);
/** The same, but what has not left is still sent. */
void sl_redis_request_forget(sl_redis_request *request);

/** Begins a command of `count` words. Where memory runs out, `bytes->data` is NULL from then on. */
void sl_redis_command(sl_core *core, sl_redis_bytes *bytes, size_t count);
void sl_redis_argument(sl_core *core, sl_redis_bytes *bytes, const char *word, size_t length);
/** Where the words of the request in the making go. */
sl_redis_bytes *sl_redis_output(sl_redis *connection);

/* ---- replies ---- */

/** One value; the elements of an array follow their array. */
typedef struct sl_redis_record {
    /** '$' string, '+' status, '-' error, ':' integer, '*' array, '_' null. */
    char type;
    /** The integer, or how many bytes or elements. */
    long long number;
    const char *bytes;
} sl_redis_record;

enum {
    /** Arrays in arrays that hiredis reads; a deeper one is a failure. */
    SL_REDIS_MAX_DEPTH = 9,
};

/** Reads the record at `*position` of a reply, and moves on. */
sl_redis_record sl_redis_record_read(const sl_redis_bytes *reply, size_t *position);

#endif
