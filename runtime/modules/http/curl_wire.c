/* SPDX-License-Identifier: MIT */
/* libcurl's multi on the core's loop: its sockets, its one timer, its finished transfers. */
#include "curl_wire.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum {
    /** Connections kept from the start; never fewer than ran at once, or they would be closed. */
    CURL_LEAST_KEPT = 64,
    /** Requests at once on a connection of HTTP/2: more of them wait for each other, fewer cost
     * handshakes. */
    CURL_STREAMS = 8,
    /** Microseconds for which an idle connection is taken to be as the loop last saw it: one that a
     * server closes has been silent for longer, and a look at it is a system call. */
    CURL_FRESH = 1000000,
};

/* The one process-wide state, and libcurl forces it; libcurl 7.84 and later lock inside as well. */
static pthread_once_t curl_started = PTHREAD_ONCE_INIT;

static void curl_start_process(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- connections of HTTP/2 ---- */

/** libcurl opens a connection for each request that finds the others' streams taken; here only as
 * many as the requests need. Its limit is for every host of a multi, so HTTP/1 ends it. */
static void curl_limit_connections(sl_curl_wire *wire, bool is_http1)
{
    if (!wire->http2 || wire->met_http1)
        return;
    wire->met_http1 = is_http1;
    long most = is_http1 ? 0 : (long)(wire->running + CURL_STREAMS) / CURL_STREAMS;
    curl_multi_setopt(wire->multi, CURLMOPT_MAX_HOST_CONNECTIONS, most);
}

static void curl_note_version(sl_curl_handle *handle)
{
    long version = 0;
    if (!handle->wire->http2 || handle->wire->met_http1)
        return;
    curl_easy_getinfo(handle->easy, CURLINFO_HTTP_VERSION, &version);
    if (version == CURL_HTTP_VERSION_1_1 || version == CURL_HTTP_VERSION_1_0)
        curl_limit_connections(handle->wire, true);
}

/* ---- finished transfers ---- */

static void curl_read_times(sl_curl_handle *handle)
{
    sl_http_transfer *transfer = handle->transfer;
    curl_off_t name = 0, connect = 0, tls = 0;
    curl_socket_t fd = CURL_SOCKET_BAD;
    long connections = 1, port = 0;
    curl_easy_getinfo(handle->easy, CURLINFO_NUM_CONNECTS, &connections);
    transfer->reused = connections == 0;
    if (transfer->reused)
        return;
    curl_easy_getinfo(handle->easy, CURLINFO_ACTIVESOCKET, &fd);
    curl_easy_getinfo(handle->easy, CURLINFO_LOCAL_PORT, &port);
    sl_curl_census_name(&handle->wire->census, fd, port);
    curl_easy_getinfo(handle->easy, CURLINFO_NAMELOOKUP_TIME_T, &name);
    curl_easy_getinfo(handle->easy, CURLINFO_CONNECT_TIME_T, &connect);
    curl_easy_getinfo(handle->easy, CURLINFO_APPCONNECT_TIME_T, &tls);
    transfer->connect_time = connect > name ? connect - name : 0;
    transfer->tls_time = tls > connect ? tls - connect : 0;
}

/** Takes a transfer out of the multi; a connection in the middle of it is closed. */
static void curl_detach(sl_curl_handle *handle)
{
    curl_read_times(handle);
    curl_note_version(handle);
    curl_multi_remove_handle(handle->wire->multi, handle->easy);
    handle->transfer->wire = NULL;
    handle->wire->running--;
}

/** Nothing was sent: again, on another connection; the stale one is closed. False without memory.
 */
static bool curl_start_again(sl_curl_handle *handle)
{
    CURLM *multi = handle->wire->multi;
    handle->is_stale = false;
    curl_multi_remove_handle(multi, handle->easy);
    return curl_multi_add_handle(multi, handle->easy) == CURLM_OK;
}

static void curl_complete(sl_curl_handle *handle, CURLcode code)
{
    if (handle->is_stale && curl_start_again(handle))
        return;
    sl_http_transfer *transfer = handle->transfer;
    long system_error = 0;
    if (code != CURLE_OK)
        curl_easy_getinfo(handle->easy, CURLINFO_OS_ERRNO, &system_error);
    curl_detach(handle);
    sl_curl_report(transfer, code, system_error, handle->error);
    sl_curl_handle_give_back(handle);
}

static void curl_drain(sl_curl_wire *wire)
{
    int left;
    const CURLMsg *message;
    while ((message = curl_multi_info_read(wire->multi, &left))) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result;
        char *handle = NULL;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &handle);
        curl_complete((sl_curl_handle *)(void *)handle, code);
    }
}

/* ---- sockets and timer ---- */

static void curl_act(sl_curl_wire *wire, curl_socket_t fd, int events)
{
    int running;
    curl_multi_socket_action(wire->multi, fd, events, &running);
    curl_drain(wire);
}

static void curl_on_ready(sl_io *io, unsigned events)
{
    sl_curl_socket *socket = (sl_curl_socket *)io;
    if (socket->is_idle) {
        sl_io_watch(socket->wire->core, io,
                    0); /* bytes, or its end: see sl_curl_socket_has_bytes */
        return;
    }
    int bits =
        ((events & SL_READ) ? CURL_CSELECT_IN : 0) | ((events & SL_WRITE) ? CURL_CSELECT_OUT : 0);
    curl_act(socket->wire, io->fd, bits);
}

static void curl_on_due(sl_timer *timer)
{
    sl_curl_wire *wire = (sl_curl_wire *)((char *)timer - offsetof(sl_curl_wire, timer));
    curl_act(wire, CURL_SOCKET_TIMEOUT, 0);
}

/** Milliseconds, -1: none. 0 too goes by the loop: libcurl may not be called from here. */
static int curl_on_timer(CURLM *multi, long delay, void *user)
{
    (void)multi;
    sl_curl_wire *wire = user;
    if (delay < 0)
        sl_timer_stop(&wire->timer);
    else
        sl_timer_start(wire->core, &wire->timer, sl_now(wire->core) + (int64_t)delay * 1000);
    return 0;
}

static bool curl_reserve_sockets(sl_curl_wire *wire, int fd)
{
    if ((size_t)fd < wire->socket_count)
        return true;
    size_t count = wire->socket_count ? wire->socket_count : 64;
    while (count <= (size_t)fd)
        count *= 2;
    sl_curl_socket **sockets = sl_realloc(wire->core, wire->sockets, count * sizeof *sockets);
    if (!sockets)
        return false;
    memset(sockets + wire->socket_count, 0, (count - wire->socket_count) * sizeof *sockets);
    wire->sockets = sockets;
    wire->socket_count = count;
    return true;
}

static sl_curl_socket *curl_socket_of(sl_curl_wire *wire, int fd)
{
    if (!curl_reserve_sockets(wire, fd))
        return NULL;
    sl_curl_socket *socket = wire->sockets[fd];
    if (!socket) {
        socket = sl_alloc_array(wire->core, 1, sizeof *socket);
        if (!socket)
            return NULL;
        socket->io.on_ready = curl_on_ready;
        socket->io.fd = fd;
        socket->wire = wire;
        wire->sockets[fd] = socket;
    }
    return socket;
}

static sl_curl_socket *curl_socket_known(const sl_curl_wire *wire, int fd)
{
    return fd >= 0 && (size_t)fd < wire->socket_count ? wire->sockets[fd] : NULL;
}

void sl_curl_socket_forget(sl_curl_wire *wire, int fd)
{
    sl_curl_socket *socket = curl_socket_known(wire, fd);
    if (!socket)
        return;
    sl_io_watch(wire->core, &socket->io, 0);
    socket->is_idle = false;
}

bool sl_curl_socket_has_bytes(const sl_curl_wire *wire, int fd)
{
    const sl_curl_socket *socket = curl_socket_known(wire, fd);
    bool is_watched = socket && socket->is_idle && socket->io.events == SL_READ;
    if (is_watched && sl_now(wire->core) - socket->idle_since < CURL_FRESH)
        return false;
    char byte;
    return fd >= 0 && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/** The next request may come at once, and would be watched as before: that is two system calls. */
static void curl_socket_rest(sl_curl_wire *wire, sl_curl_socket *socket)
{
    socket->is_idle = true;
    socket->idle_since = sl_now(wire->core);
    if (socket->io.events == SL_READ)
        sl_io_park(wire->core, &socket->io);
    else
        sl_io_watch(wire->core, &socket->io, 0);
}

static int curl_on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *of_socket)
{
    (void)easy;
    (void)of_socket;
    sl_curl_wire *wire = user;
    if (what == CURL_POLL_REMOVE) {
        sl_curl_socket *known = curl_socket_known(wire, fd);
        if (known)
            curl_socket_rest(wire, known);
        return 0;
    }
    sl_curl_socket *socket = curl_socket_of(wire, fd);
    if (!socket)
        return -1;
    socket->is_idle = false;
    unsigned events = ((what & CURL_POLL_IN) ? (unsigned)SL_READ : 0u) |
                      ((what & CURL_POLL_OUT) ? (unsigned)SL_WRITE : 0u);
    return sl_io_watch(wire->core, &socket->io, events);
}

/* ---- the table of wire.h ---- */

static void curl_keep_enough(sl_curl_wire *wire)
{
    if (wire->running < (size_t)wire->max_connects || wire->max_connects > LONG_MAX / 2)
        return;
    wire->max_connects *= 2;
    curl_multi_setopt(wire->multi, CURLMOPT_MAXCONNECTS, wire->max_connects);
}

static int curl_wire_start(sl_http_wire *base, sl_http_transfer *transfer)
{
    sl_curl_wire *wire = (sl_curl_wire *)base;
    sl_curl_handle *handle = sl_curl_handle_take(wire, transfer->wants_events);
    if (!handle)
        return -1;
    curl_limit_connections(wire, !transfer->target->secure);
    if (sl_curl_handle_prepare(handle, transfer) < 0 ||
        curl_multi_add_handle(wire->multi, handle->easy) != CURLM_OK) {
        sl_curl_handle_give_back(handle);
        return -1;
    }
    handle->transfer = transfer;
    transfer->wire = handle;
    wire->running++;
    curl_keep_enough(wire);
    return 0;
}

static void curl_wire_stop(sl_http_wire *base, sl_http_transfer *transfer)
{
    (void)base;
    sl_curl_handle *handle = transfer->wire;
    curl_detach(handle);
    sl_curl_handle_give_back(handle);
}

static void curl_wire_resume(sl_http_wire *base, sl_http_transfer *transfer)
{
    (void)base;
    sl_curl_handle *handle = transfer->wire;
    if (!handle)
        return;
    int mask =
        (transfer->paused ? CURLPAUSE_RECV : 0) | (transfer->upload_starved ? CURLPAUSE_SEND : 0);
    /* what was held back comes through the write callback inside this call; where that aborts,
     * the multi does not hear of it */
    CURLcode code = curl_easy_pause(handle->easy, mask);
    if (code != CURLE_OK)
        curl_complete(handle, code);
}

static bool curl_wire_has_sent(sl_http_wire *base, const sl_http_transfer *transfer)
{
    (void)base;
    const sl_curl_handle *handle = transfer->wire;
    curl_off_t sent = 0;
    curl_easy_getinfo(handle->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
    return sent >= 0 && (uint64_t)sent >= transfer->request_body_size;
}

static size_t curl_wire_count(sl_http_wire *base)
{
    return sl_curl_census_count(&((sl_curl_wire *)base)->census);
}

static void curl_free_pool(sl_curl_handle **pool)
{
    while (*pool) {
        sl_curl_handle *handle = *pool;
        *pool = handle->next;
        sl_curl_handle_free(handle);
    }
}

static void curl_wire_close(sl_http_wire *base)
{
    sl_curl_wire *wire = (sl_curl_wire *)base;
    curl_free_pool(&wire->idle);
    curl_free_pool(&wire->idle_small);
    if (wire->multi)
        curl_multi_cleanup(wire->multi);
    sl_timer_stop(&wire->timer);
    sl_curl_census_fini(&wire->census);
    for (size_t fd = 0; fd < wire->socket_count; fd++) {
        sl_curl_socket_forget(wire, (int)fd);
        sl_free(wire->core, wire->sockets[fd]);
    }
    sl_free(wire->core, wire->sockets);
    sl_free(wire->core, wire->ca_file);
    sl_free(wire->core, wire->certificate);
    sl_free(wire->core, wire->key);
    sl_free(wire->core, wire->key_password);
    sl_free(wire->core, wire->unix_path);
    sl_free(wire->core, wire);
}

/** True too where there is nothing to copy. */
static bool curl_copy(sl_core *core, char **copy, const char *text)
{
    if (!text)
        return true;
    size_t size = strlen(text) + 1;
    *copy = sl_alloc(core, size);
    if (*copy)
        memcpy(*copy, text, size);
    return *copy != NULL;
}

static void curl_set_accepted(sl_curl_wire *wire)
{
    int features = curl_version_info(CURLVERSION_NOW)->features;
    snprintf(wire->accept_encoding, sizeof wire->accept_encoding, "Accept-Encoding: %s%s%s",
             (features & CURL_VERSION_LIBZ) ? "gzip" : "identity",
             (features & CURL_VERSION_BROTLI) ? ", br" : "",
             (features & CURL_VERSION_ZSTD) ? ", zstd" : "");
}

static bool curl_wire_init(sl_curl_wire *wire, const sl_http_engine_options *options)
{
    /* Debian's bundle: its default directory of authorities would cost 21 ms at each new
     * connection, because libcurl then keeps no parsed store */
    static const char bundle[] = "/etc/ssl/certs/ca-certificates.crt";
    sl_core *core = wire->core;
    wire->http2 = options->http2;
    curl_set_accepted(wire);
    wire->multi = curl_multi_init();
    if (!wire->multi ||
        !curl_copy(core, &wire->ca_file, options->ca_file ? options->ca_file : bundle) ||
        !curl_copy(core, &wire->certificate, options->certificate) ||
        !curl_copy(core, &wire->key, options->key) ||
        !curl_copy(core, &wire->key_password, options->key_password) ||
        !curl_copy(core, &wire->unix_path, options->unix_path))
        return false;
    curl_multi_setopt(wire->multi, CURLMOPT_MAX_CONCURRENT_STREAMS, (long)CURL_STREAMS);
    wire->max_connects = CURL_LEAST_KEPT;
    curl_multi_setopt(wire->multi, CURLMOPT_MAXCONNECTS, wire->max_connects);
    curl_multi_setopt(wire->multi, CURLMOPT_SOCKETFUNCTION, curl_on_socket);
    curl_multi_setopt(wire->multi, CURLMOPT_SOCKETDATA, wire);
    curl_multi_setopt(wire->multi, CURLMOPT_TIMERFUNCTION, curl_on_timer);
    curl_multi_setopt(wire->multi, CURLMOPT_TIMERDATA, wire);
    return true;
}

static void curl_wire_warm_up(sl_http_wire *base)
{
    sl_curl_warm_up((sl_curl_wire *)base);
}

sl_http_wire *sl_http_curl_open(sl_core *core, const sl_http_engine_options *options)
{
    pthread_once(&curl_started, curl_start_process);
    sl_curl_wire *wire = sl_alloc_array(core, 1, sizeof *wire);
    if (!wire)
        return NULL;
    wire->core = wire->census.core = core;
    wire->timer.on_due = curl_on_due;
    wire->base = (sl_http_wire){
        .start = curl_wire_start,
        .stop = curl_wire_stop,
        .resume = curl_wire_resume,
        .has_sent = curl_wire_has_sent,
        .count = curl_wire_count,
        .warm_up = curl_wire_warm_up,
        .close = curl_wire_close,
    };
    if (curl_wire_init(wire, options))
        return &wire->base;
    curl_wire_close(&wire->base);
    return NULL;
}
