/* SPDX-License-Identifier: MIT */
/* What the files of the Redis engine share. */
#ifndef SL_REDIS_PRIVATE_H
#define SL_REDIS_PRIVATE_H

#include "modules/resolver/resolver.h"
#include "redis.h"

#include <hiredis/read.h>
#include <sys/types.h>

typedef struct sl_redis_tls sl_redis_tls;

struct sl_redis_server {
    sl_core *core;
    unsigned users;
    char *host, *path, *server_name;
    unsigned port;
    int64_t connect_time;
    size_t max_reply;
    /** Made when a name is first asked for. */
    sl_resolver *resolver;
    /** NULL: plain. */
    sl_redis_tls *tls;
    sl_redis_bytes greeting;
    unsigned greeting_replies;
};

enum sl_redis_state {
    SL_REDIS_RESOLVING,
    SL_REDIS_CONNECTING,
    SL_REDIS_HANDSHAKE,
    SL_REDIS_GREETING,
    SL_REDIS_OPEN,
    SL_REDIS_CLOSED,
};

typedef struct sl_redis_list {
    sl_redis_request *first, *last;
} sl_redis_list;

struct sl_redis {
    sl_core *core;
    sl_redis_server *server;
    enum sl_redis_state state;
    sl_io io; /* fd -1: none */
    sl_lookup lookup;
    char *addresses;       /* that are still to be tried, as the resolver writes them */
    char *next_address;    /* in `addresses` */
    int64_t connect_due;   /* when all of connecting must be done */
    sl_timer connect;      /* the limit of one address, or of it all */
    sl_timer flush;        /* at the end of the turn of the loop */
    void *ssl;             /* of OpenSSL; NULL: plain */
    bool tls_wants_write;  /* it cannot read on before it has written */
    sl_redis_bytes out;    /* to be sent, after the greeting */
    size_t out_done;       /* of these, sent */
    uint64_t out_base;     /* what was sent before `out` */
    sl_redis_list pending; /* the first one's reply comes next */
    sl_redis_list ended;   /* no more in the queue, not yet released by their callers */
    sl_redis_request *spare;
    unsigned spare_count;
    size_t in_flight; /* how many are pending */
    size_t waiting;   /* of these, how many somebody waits for */
    bool retired;
    redisReader *reader;
    redisReplyObjectFunctions functions; /* hiredis wants them writable */
    sl_redis_bytes *target; /* the records of the reply that comes; NULL: thrown away */
    size_t incoming;        /* bytes of it so far */
    uint64_t heard;         /* bytes received, ever */
    size_t greeting_done;   /* bytes of the server's greeting that are sent */
    unsigned greeting_left; /* replies to it that are still to come */
    sl_redis_bytes greeting_reply;
    bool answered;
    const char *failure_kind; /* static; NULL while it is fine */
    char failure[512];
};

/** Whether any byte of the request has left. */
static inline bool sl_redis_is_sent(const sl_redis *c, const sl_redis_request *request)
{
    return request->begin < c->out_base + c->out_done;
}

/* ---- session.c ---- */

/** Ends the connection, and with it all requests. */
void sl_redis_fail(sl_redis *c, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** Watches for what is wanted now. */
void sl_redis_watch(sl_redis *c);
/** The socket is ready, TLS too. */
void sl_redis_connected(sl_redis *c);
/** The greeting is over: the requests may go. */
void sl_redis_welcomed(sl_redis *c);

/* ---- connect.c ---- */

/** Resolves and connects. */
void sl_redis_connect_start(sl_redis *c);
/** The socket can be written to: connected, or not. */
void sl_redis_connect_ready(sl_redis *c);

/* ---- request.c ---- */

/** Ends all pending requests as failed. */
void sl_redis_requests_fail(sl_redis *c);
void sl_redis_requests_free(sl_redis *c);
/** The first request has one more of its replies. */
void sl_redis_requests_reply(sl_redis *c);

/* ---- records.c ---- */

int sl_redis_reader_open(sl_redis *c);
/** Reads what came; false when the connection failed over it. */
bool sl_redis_reader_feed(sl_redis *c, const char *bytes, size_t length);
/** Adds bytes; false without memory. */
bool sl_redis_bytes_add(sl_core *core, sl_redis_bytes *bytes, const void *data, size_t length);
void sl_redis_bytes_free(sl_core *core, sl_redis_bytes *bytes);

/* ---- session_tls.c: the socket through OpenSSL ---- */

sl_redis_tls *sl_redis_tls_new(sl_core *core, const sl_redis_options *options, char *error,
                               size_t size);
void sl_redis_tls_delete(sl_redis_tls *tls);
/** Begins TLS on the connection's socket; -1 without memory. */
int sl_redis_tls_open(sl_redis *c);
/** Goes on with the handshake: 1 done, 0 goes on, -1 failed, told by sl_redis_fail. */
int sl_redis_tls_handshake(sl_redis *c);
void sl_redis_tls_close(sl_redis *c);
/** As recv and send. */
ssize_t sl_redis_tls_receive(sl_redis *c, char *bytes, size_t size);
ssize_t sl_redis_tls_send(sl_redis *c, const char *bytes, size_t length);

#endif
