/* SPDX-License-Identifier: MIT */
/*
 * An HTTP/1.1 server on the core's loop, without Lua.
 *
 * A server owns its connections; a connection has one exchange (a request and its answer) at a
 * time. An exchange outlives its connection while somebody holds it: every function here takes one
 * whose client has left and then says so. The events are told from the loop and from inside these
 * functions: they store and wake, and never call back in here.
 */
#ifndef SL_SERVER_H
#define SL_SERVER_H

#include "body.h"
#include "bytes.h"
#include "head.h"

#include <sys/types.h>

typedef struct sl_server sl_server;
typedef struct sl_connection sl_connection;
typedef struct sl_exchange sl_exchange;
typedef struct sl_refusal sl_refusal;

enum {
    /** Holds every request id of ours. */
    SL_REQUEST_ID_SIZE = 32,
    /** Body bytes kept for a handler that does not read, answer bytes for a client that does not,
     *  and bytes of later requests behind one that is being answered. */
    SL_HIGH_WATER = 65536,
};

/** Limits; times in microseconds. */
typedef struct sl_server_limits {
    uint64_t max_body;
    uint32_t max_connections;
    /** Bytes a second that a body must bring, over each stretch of body_time. */
    uint32_t body_rate;
    /** For a whole head; between two bytes of a body; between two requests. */
    int64_t head_time, body_time, idle_time;
    /** Without progress of the answer; for the client to take the end of a refused request. */
    int64_t stall_time, linger_time;
} sl_server_limits;

/** How bytes get to the other side and back; plain sockets by default. */
typedef struct sl_transport {
    /** Begins on an accepted socket. False where that needs memory that there is not. */
    bool (*open)(sl_connection *connection);
    /** As recv and send: a number of bytes, 0 at the end, -1 and errno. Where they wait for the
     *  other direction they say so in connection->crossed. */
    ssize_t (*receive)(sl_connection *connection, char *bytes, size_t size);
    ssize_t (*send)(sl_connection *connection, const char *bytes, size_t length);
    /** Tells the other side that no more is sent. 0, or -1 and errno: EAGAIN to try once more. */
    int (*end)(sl_connection *connection);
    /** Gives back what open took. In order: nothing is cut, and the other side may know. */
    void (*close)(sl_connection *connection, bool in_order);
} sl_transport;

typedef struct sl_server_events {
    /** sl_server_take has something to give. */
    void (*on_request)(sl_server *server);
    /** Stopped, and the last answer is on its way. */
    void (*on_drained)(sl_server *server);
    /** More of the body, its end or its failure. */
    void (*on_body)(sl_exchange *exchange);
    /** The answer's backlog is below the high water mark again. */
    void (*on_room)(sl_exchange *exchange);
    /** The client has left before its answer was complete. */
    void (*on_gone)(sl_exchange *exchange);
    /** sl_server_take_refusal has something to give. */
    void (*on_refused)(sl_server *server);
} sl_server_events;

/** A request that ended before anybody could take it. */
struct sl_refusal {
    sl_refusal *next;
    /** 499 where the client left first. */
    int status;
    /** Of the answer's body. */
    size_t bytes;
    /** Microseconds since its first byte. */
    int64_t duration;
    char remote[112];
    /** Of its answer; empty where there was none. */
    char id[SL_REQUEST_ID_SIZE];
    /** Of the method and the path (without query) in `text`; 0 where they did not come whole. */
    uint16_t method_length, path_length;
    char text[];
};

struct sl_server {
    sl_core *core;
    const sl_server_events *events;
    const sl_transport *transport;
    /** Of the transport; of whoever set it. NULL for plain sockets. */
    void *transport_data;
    sl_server_limits limits;
    /** The listening socket; fd is -1 when it does not listen (any more). */
    sl_io io;
    /** Accepting pauses when descriptors run out. */
    sl_timer retry;
    sl_connection *connections;
    /** Exchanges not taken yet. */
    sl_exchange *first, *last;
    /** What its request ids begin with, and how many there were. */
    uint32_t id_prefix;
    uint64_t ids;
    /** Kept for whoever writes an access log; how many there are, and how many found no room. */
    bool keeps_refusals;
    sl_refusal *first_refusal, *last_refusal;
    uint32_t refusals, refusals_lost;
    /** Connections, and those of them that are at work: a request begun, an answer to send. */
    uint32_t count, working;
    /** Accepts again when a connection goes. */
    bool full;
    bool stopping;
    /** Where bytes are received into, and where a head is split. */
    char *scratch;
    sl_field fields[SL_FIELDS_MAX];
    /** The Date field of this second. */
    int64_t date_second;
    char date[32];
};

/** Serves a listening socket, which it then owns. Returns 0, or -1 without memory. */
int sl_server_open(sl_server *server, sl_core *core, int fd, const sl_server_limits *limits,
                   const sl_server_events *events);
/** Accepts no more, closes idle connections; answers under way go on. */
void sl_server_stop(sl_server *server);
/** Closes everything at once. Idempotent. */
void sl_server_close(sl_server *server);
/** The oldest request that nobody has taken, or NULL. Whoever takes it must drop it. */
sl_exchange *sl_server_take(sl_server *server);
/** The oldest refusal, or NULL. Whoever takes it must sl_free it. */
sl_refusal *sl_server_take_refusal(sl_server *server);

/* ---- one request and its answer ---- */

struct sl_exchange {
    /** NULL when the answer is complete, or the client is gone. */
    sl_connection *connection;
    sl_core *core;
    /** Who took it; NULL otherwise. */
    void *holder;
    sl_exchange *next;
    sl_body body;
    /** What of the body has come and is not read. */
    sl_bytes content;
    uint64_t received;
    /** 0, or why the body cannot be read: 400, 408, 413. */
    int failure;
    bool queued, wants_all, wants_room, continued;
    /** Of the answer. */
    bool begun, started, finished, close, chunked, has_date, has_type, has_id;
    /** No body belongs into the answer (HEAD, 204, 304), whatever is written. */
    bool bodyless;
    /** Content bytes still to be written; meaningless when chunked or up to the close. */
    uint64_t left;
    bool counted;
    /** The status of the answer (0: none yet), and the bytes of its body so far. */
    int status;
    uint64_t written;
    /** When its head was complete. */
    int64_t since;
    /** The number of its id, where the client brought none. */
    uint64_t id_number;
    uint32_t id_prefix;
    /** Where this answer's head begins in the backlog, to take it back. */
    size_t mark;
    /** Of a stream: its head while that is held; whether what was written ends a line, and waits
     * for the end of this turn of the loop. */
    char *held;
    uint32_t held_length;
    bool is_stream, at_line_start, deferred;
    /** Microseconds of silence after which a comment is sent; 0 for none. */
    int64_t silence;
    /** When something was last written, and sent. */
    int64_t written_at, flushed_at;
    sl_timer timer;
    sl_head head;
    /** The bytes that the head's spans point into; behind the fields in the same block. */
    char *bytes;
};

/** Gives an exchange back; one that is not finished is aborted. */
void sl_exchange_drop(sl_exchange *exchange);

/** Asks for more of the body: a piece, or all of it. Look again at what there is before waiting. */
void sl_exchange_want(sl_exchange *exchange, bool all);
/** After content was consumed: goes on receiving. */
void sl_exchange_consumed(sl_exchange *exchange);

static inline bool sl_exchange_is_gone(const sl_exchange *exchange)
{
    return !exchange->connection && !exchange->finished;
}

/** Begins the head of the answer. False when that cannot be done (gone, or begun before). */
bool sl_exchange_begin(sl_exchange *exchange, int status);
/** Adds a field. Returns NULL, or what is wrong with it (static text). */
const char *sl_exchange_field(sl_exchange *exchange, const char *name, size_t name_length,
                              const char *value, size_t value_length);
/** Takes back what sl_exchange_begin and sl_exchange_field wrote. */
void sl_exchange_rewind(sl_exchange *exchange);
/** Ends the head: a body of `length` bytes follows, or one of unknown length (-1). */
void sl_exchange_end_head(sl_exchange *exchange, int64_t length);
/**
 * Makes a stream of it, after sl_exchange_end_head: the head is kept until something is written, so
 * that another answer can still be begun; and sl_exchange_is_full says when the client is behind.
 * After `silence` microseconds (0: never) without a write a comment of an event stream is sent, and
 * with it the head.
 */
void sl_exchange_hold(sl_exchange *exchange, int64_t silence);
/** Adds to the body, without sending yet. Returns NULL or what is wrong (static text). */
const char *sl_exchange_write(sl_exchange *exchange, const char *bytes, size_t length);
/** Sends what was written. False when the client is gone. */
bool sl_exchange_flush(sl_exchange *exchange);
/** As sl_exchange_write, an event of a stream with this data, which holds no line end. */
void sl_exchange_write_data(sl_exchange *exchange, const char *data, size_t length);
/** Sends what was written: at once, or at the end of this turn where that was just done before, so
 *  that many small pieces share a packet. False when the client is gone. */
bool sl_exchange_flush_soon(sl_exchange *exchange);
/** Whether a stream's client is behind: the kernel has not taken all that was sent. */
bool sl_exchange_is_full(const sl_exchange *exchange);
/** Bytes written that the kernel has not taken. */
size_t sl_exchange_backlog(const sl_exchange *exchange);
/** Ends the answer; one that is shorter than it said is cut off, so that the client sees it. */
void sl_exchange_finish(sl_exchange *exchange);
/** Ends the answer where it is, so that the client sees that the rest is missing: what was written
 *  still reaches it. */
void sl_exchange_cut(sl_exchange *exchange);
/** Closes the connection at once. */
void sl_exchange_abort(sl_exchange *exchange);
/** The client's id where that is usable, else one of ours, which is made in `text`. */
const char *sl_exchange_id(const sl_exchange *exchange, char text[SL_REQUEST_ID_SIZE],
                           size_t *length);
/** The client's address, into `text`; false when it is gone. */
bool sl_exchange_peer(const sl_exchange *exchange, char *text, size_t size);

#endif
