/* SPDX-License-Identifier: MIT */
/* What the files of the libcurl wire share. */
#ifndef SL_HTTP_CURL_WIRE_H
#define SL_HTTP_CURL_WIRE_H

#include "proxy.h"
#include "target.h"
#include "wire.h"

#include <curl/curl.h>

typedef struct sl_curl_wire sl_curl_wire;
typedef struct sl_curl_handle sl_curl_handle;
typedef struct sl_curl_socket sl_curl_socket;

enum {
    /** Descriptors remembered by their ports. */
    CURL_HINTS = 1024,
};

/** The sockets that libcurl has opened, to be counted. */
typedef struct sl_curl_census {
    sl_core *core;
    /** By descriptor: the inode of the socket, 0 for none of ours. */
    uint64_t *inodes;
    /** By descriptor: the port at our end, 0 until a first transfer has ended. */
    uint16_t *ports;
    size_t size;
    /** By half of a port (they are all even, or all odd): which descriptor it may be. */
    int hints[CURL_HINTS];
} sl_curl_census;

struct sl_curl_wire {
    sl_http_wire base;
    sl_core *core;
    CURLM *multi;
    /** libcurl's one timer. */
    sl_timer timer;
    char *ca_file;
    /** NULL where there is none. */
    char *certificate, *key, *key_password, *unix_path;
    /** A header line: what this libcurl undoes. */
    char accept_encoding[48];
    bool http2;
    /** Of a wire with http2: it has met HTTP/1 as well, where a request needs its own connection.
     */
    bool met_http1;
    /** Easy handles for the next transfers, options set. */
    sl_curl_handle *idle;
    /** The same, of streams of events. */
    sl_curl_handle *idle_small;
    size_t idle_count, running;
    /** Connections that libcurl may keep; grows with the peak of `running`. */
    long max_connects;
    sl_curl_census census;
    /** By descriptor; NULL where there was none. */
    sl_curl_socket **sockets;
    size_t socket_count;
};

/** A descriptor that libcurl waits for, or has waited for. */
struct sl_curl_socket {
    sl_io io;
    sl_curl_wire *wire;
    /** No transfer has it, since then; it is watched still, until something comes. */
    bool is_idle;
    int64_t idle_since;
};

/** An easy handle and what its options point at. */
struct sl_curl_handle {
    CURL *easy;
    sl_curl_wire *wire;
    sl_http_transfer *transfer;
    sl_curl_handle *next;
    /** The header lines as a list, in one block. */
    struct curl_slist *nodes;
    size_t node_capacity;
    /** "+host:port:addresses". */
    struct curl_slist resolve;
    size_t resolve_capacity;
    /** It was given a connection that must not be used. */
    bool is_stale;
    /** It receives into a small buffer. */
    bool is_small;
    /* options that differ from those of a new handle */
    bool is_head, has_custom, has_resolve, is_unverified, has_ca_file, is_raw;
    /** Of the wire's engine; NULL: none is set. */
    const sl_http_proxy *proxy;
    char error[CURL_ERROR_SIZE];
};

/* curl_handle.c */
/** From the pool or new, one that receives into a small buffer or a usual one; NULL without memory.
 */
sl_curl_handle *sl_curl_handle_take(sl_curl_wire *wire, bool is_small);
void sl_curl_handle_give_back(sl_curl_handle *handle);
void sl_curl_handle_free(sl_curl_handle *handle);
/** Sets the options of a transfer. 0, or -1 without memory. */
int sl_curl_handle_prepare(sl_curl_handle *handle, sl_http_transfer *transfer);

/* curl_wire.c */
/** Bytes have come on an idle connection, which libcurl has not read. */
bool sl_curl_socket_has_bytes(const sl_curl_wire *wire, int fd);
/** It is about to be closed, or has been opened anew. */
void sl_curl_socket_forget(sl_curl_wire *wire, int fd);

/* curl_warm.c */
/** Does what the first TLS connection would do beforehand. */
void sl_curl_warm_up(sl_curl_wire *wire);

/* curl_census.c */
/** Makes an easy handle report the sockets it opens. */
void sl_curl_census_watch(sl_curl_wire *wire, CURL *easy);
/** The connection at this descriptor has this port at our end. */
void sl_curl_census_name(sl_curl_census *census, curl_socket_t fd, long port);
/** The descriptor of the connection with this port at our end; -1: not known. */
int sl_curl_census_find(sl_curl_census *census, int port);
/** How many are open. One system call for each: for a look at the pool, not for each request. */
size_t sl_curl_census_count(sl_curl_census *census);
void sl_curl_census_fini(sl_curl_census *census);

/* curl_error.c */
/** Reports the end of a transfer that libcurl has ended with `code`. */
void sl_curl_report(sl_http_transfer *transfer, CURLcode code, long system_error,
                    const char *detail);

#endif
