/* SPDX-License-Identifier: MIT */
/* What the files of the server share about a connection. */
#ifndef SL_SERVER_CONNECTION_H
#define SL_SERVER_CONNECTION_H

#include "server.h"

enum {
    /** The status, inside, of a refused client that does not speak TLS where it should: 400. */
    SL_NOT_TLS = 497,
};

enum sl_connection_state {
    /** Between requests, or in a head. */
    SL_CONNECTION_HEAD,
    /** Has an exchange. */
    SL_CONNECTION_BUSY,
    /** The last answer is written: sends it, then lingers. */
    SL_CONNECTION_FLUSH,
    /** Nothing more is sent; waits for the client to close, so that no reset eats the answer. */
    SL_CONNECTION_LINGER,
    /** To be freed by sl_connection_settle. */
    SL_CONNECTION_DEAD,
};

struct sl_connection {
    sl_io io;
    sl_timer timer;
    sl_server *server;
    const sl_transport *transport;
    /** Of the transport, for this connection. */
    void *transport_data;
    sl_connection *next, **previous;
    sl_exchange *exchange;
    /** Bytes received and not used; answer bytes not sent. */
    sl_bytes in, out;
    sl_head_scan scan;
    /** Since when it is in this state (idle: since the last answer; a head: since its first byte).
     */
    int64_t since;
    /** The last byte of a body, and the start of the stretch over which its rate is taken. */
    int64_t body_at, stretch_at;
    /** The last progress in sending a backlog. */
    int64_t sent_at;
    uint32_t stretch_bytes;
    /** Bytes thrown away since the body failed, or while lingering. */
    uint32_t discarded;
    uint8_t state;
    /** Has answered before; its client sends no more; counts as working. */
    bool served, ended, working;
    /** What one direction waits for is an event of the other; the answer ends before its time; and,
     *  when dead, nothing was cut. */
    bool crossed, cut, in_order;
};

/** Plain sockets. */
extern const sl_transport sl_transport_plain;

/** Takes over an accepted socket. Returns false without memory (the socket is closed then). */
bool sl_connection_open(sl_server *server, int fd);
/** Gives up the connection at once; the exchange learns that its client is gone. */
void sl_connection_kill(sl_connection *connection);
/** Ends every entry from outside: frees what is dead, watches and times what is not. */
void sl_connection_settle(sl_connection *connection);
/** Its client does not speak TLS and gets told so, without it. */
void sl_connection_not_tls(sl_connection *connection);
/** Sends what it can of the backlog. */
void sl_connection_send(sl_connection *connection);
/** Appends to the backlog; without memory the connection is dead. */
void sl_connection_append(sl_connection *connection, const void *data, size_t length);
/** Uses the bytes that were kept. */
void sl_connection_resume(sl_connection *connection);
/** Receives a body again that was held up; its time starts anew. */
void sl_connection_go_on(sl_connection *connection);
/** Its exchange is complete: on to the next request, or to the end. */
void sl_connection_next(sl_connection *connection, bool close);

/** The client's address, into `text`; false when it cannot be told. */
bool sl_connection_peer(const sl_connection *connection, char *text, size_t size);

/* exchange.c */

/** From a complete head; NULL and a status where it is refused. */
sl_exchange *sl_exchange_new(sl_connection *connection, const char *head, size_t length,
                             int *status);
void sl_exchange_free(sl_exchange *exchange);
/** Puts it where sl_server_take finds it. */
void sl_exchange_enqueue(sl_server *server, sl_exchange *exchange);

/** Makes a request id of the server's number; returns its length. */
size_t sl_request_id_format(uint32_t prefix, uint64_t number, char text[SL_REQUEST_ID_SIZE]);

/* listener.c */

/** A connection is gone: there is room for another one. */
void sl_server_has_room(sl_server *server);

/* reply.c */

/** Appends a held head to the backlog: the answer has begun. */
void sl_exchange_release(sl_exchange *exchange);
/** Forgets a held head, and all that makes it a stream. */
void sl_exchange_unhold(sl_exchange *exchange);
/** Answers a request that has no exchange, and ends the connection; tells in `outcome` how. */
void sl_reply_refuse(sl_connection *connection, int status, sl_refusal *outcome);

/* refusal.c */

/** Notes how a request ended (status, bytes, duration), if notes are kept; `line` is what came of
 *  its head. */
void sl_refusal_note(sl_connection *connection, const sl_refusal *outcome, const char *line,
                     size_t length);

#endif
