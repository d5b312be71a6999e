/* SPDX-License-Identifier: MIT */
/* Easy handles: a pool of them, the options of a transfer, and the callbacks that move its bytes.
 */
#include "curl_wire.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum {
    /** Handles kept for later; a new one costs about 2 us more than a kept one. */
    CURL_MAX_IDLE_HANDLES = 1024,
    /** Seconds of silence before TCP asks whether the other end lives, and between two questions:
     * a model may think for minutes, and NAT forgets a silent connection. */
    CURL_KEEPALIVE_IDLE = 60,
    CURL_KEEPALIVE_EVERY = 30,
    /** Bytes that are received at a time of a stream of events, whose handles are many and whose
     * pieces are few: libcurl's usual 16 KB take 3 KB more of memory. */
    CURL_SMALL_BUFFER = 1024,
    /** Bytes of a body for which libcurl would send "Expect: 100-continue" and wait. */
    CURL_EXPECTS_FROM = 1024 * 1024,
};

/* ---- callbacks: they store and give a verdict, nothing else ---- */

/**
 * Bytes that nobody asked for, on a kept connection: they would be taken for the answer to this
 * request (a "408" that a server sends before it closes, or worse). libcurl 7.88 does not look.
 */
static bool curl_is_stale(sl_curl_handle *handle, int local_port)
{
    sl_curl_wire *wire = handle->wire;
    long connections = 1;
    curl_easy_getinfo(handle->easy, CURLINFO_NUM_CONNECTS, &connections);
    bool may_share = wire->http2 && handle->transfer->target->secure;
    return connections == 0 && !may_share &&
           sl_curl_socket_has_bytes(wire, sl_curl_census_find(&wire->census, local_port));
}

static int curl_on_prereq(void *user, char *remote, char *local, int remote_port, int local_port)
{
    (void)local;
    sl_curl_handle *handle = user;
    sl_http_transfer *transfer = handle->transfer;
    handle->is_stale = curl_is_stale(handle, local_port);
    if (handle->is_stale)
        return CURL_PREREQFUNC_ABORT;
    snprintf(transfer->remote_address, sizeof transfer->remote_address, "%s", remote);
    transfer->remote_port = remote_port;
    return sl_http_on_ready(transfer) == SL_HTTP_ABORT ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static size_t curl_on_header(char *data, size_t size, size_t count, void *user)
{
    sl_curl_handle *handle = user;
    size_t bytes = size * count;
    return sl_http_on_head(handle->transfer, data, bytes) == SL_HTTP_ABORT ? 0 : bytes;
}

static size_t curl_on_write(char *data, size_t size, size_t count, void *user)
{
    sl_curl_handle *handle = user;
    size_t bytes = size * count;
    switch (sl_http_on_body(handle->transfer, data, bytes)) {
    case SL_HTTP_GO_ON:
        return bytes;
    case SL_HTTP_PAUSE:
        return CURL_WRITEFUNC_PAUSE;
    case SL_HTTP_PAUSE_AFTER:
        curl_easy_pause(handle->easy,
                        CURLPAUSE_RECV | (handle->transfer->upload_starved ? CURLPAUSE_SEND : 0));
        return bytes;
    default:
        return bytes == 0 ? 1 : 0;
    }
}

static size_t curl_on_read(char *data, size_t size, size_t count, void *user)
{
    sl_curl_handle *handle = user;
    long bytes = sl_http_on_upload(handle->transfer, data, size * count);
    return bytes < 0 ? CURL_READFUNC_PAUSE : (size_t)bytes;
}

/* ---- the pool ---- */

static void curl_set_tls(const sl_curl_handle *handle)
{
    CURL *easy = handle->easy;
    curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    curl_easy_setopt(easy, CURLOPT_CAINFO, handle->wire->ca_file);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_PROXY_CAPATH, NULL);
    curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, handle->wire->ca_file);
    curl_easy_setopt(easy, CURLOPT_SSLCERT, handle->wire->certificate);
    curl_easy_setopt(easy, CURLOPT_SSLKEY, handle->wire->key);
    curl_easy_setopt(easy, CURLOPT_KEYPASSWD, handle->wire->key_password);
}

static void curl_set_protocol(const sl_curl_handle *handle)
{
    CURL *easy = handle->easy;
    long version = handle->wire->http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1;
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, version);
    /* rather wait for a connection that may take more streams than open another */
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, handle->wire->http2 ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, handle->wire->unix_path);
}

/** The options that are the same for every transfer. */
static void curl_set_constants(sl_curl_handle *handle)
{
    CURL *easy = handle->easy;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, handle);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, handle->error);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    /* an empty proxy: libcurl would read the environment, which is a capability */
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_set_protocol(handle);
    /* every one that this libcurl knows */
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, (long)CURL_KEEPALIVE_IDLE);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, (long)CURL_KEEPALIVE_EVERY);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, curl_on_prereq);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, handle);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, curl_on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, handle);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, curl_on_write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, handle);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, curl_on_read);
    curl_easy_setopt(easy, CURLOPT_READDATA, handle);
    sl_curl_census_watch(handle->wire, easy);
    curl_set_tls(handle);
}

static sl_curl_handle **curl_pool_of(sl_curl_wire *wire, bool is_small)
{
    return is_small ? &wire->idle_small : &wire->idle;
}

sl_curl_handle *sl_curl_handle_take(sl_curl_wire *wire, bool is_small)
{
    sl_curl_handle **pool = curl_pool_of(wire, is_small), *handle = *pool;
    if (handle) {
        *pool = handle->next;
        wire->idle_count--;
        return handle;
    }
    handle = sl_alloc_array(wire->core, 1, sizeof *handle);
    if (!handle)
        return NULL;
    handle->wire = wire;
    handle->easy = curl_easy_init();
    if (!handle->easy) {
        sl_free(wire->core, handle);
        return NULL;
    }
    curl_set_constants(handle);
    handle->is_small = is_small;
    if (is_small)
        curl_easy_setopt(handle->easy, CURLOPT_BUFFERSIZE, (long)CURL_SMALL_BUFFER);
    return handle;
}

void sl_curl_handle_free(sl_curl_handle *handle)
{
    sl_core *core = handle->wire->core;
    curl_easy_cleanup(handle->easy);
    sl_free(core, handle->nodes);
    sl_free(core, handle->resolve.data);
    sl_free(core, handle);
}

void sl_curl_handle_give_back(sl_curl_handle *handle)
{
    sl_curl_wire *wire = handle->wire;
    handle->transfer = NULL;
    if (wire->idle_count >= CURL_MAX_IDLE_HANDLES) {
        sl_curl_handle_free(handle);
        return;
    }
    sl_curl_handle **pool = curl_pool_of(wire, handle->is_small);
    handle->next = *pool;
    *pool = handle;
    wire->idle_count++;
}

/* ---- the options of one transfer ---- */

static bool curl_reserve_nodes(sl_curl_handle *handle, size_t count)
{
    if (count <= handle->node_capacity)
        return true;
    size_t capacity = count < 16 ? 16 : count * 2;
    struct curl_slist *nodes =
        sl_realloc(handle->wire->core, handle->nodes, capacity * sizeof *nodes);
    if (!nodes)
        return false;
    handle->nodes = nodes;
    handle->node_capacity = capacity;
    return true;
}

/** POST, PUT and PATCH say "Content-Length: 0" where they have none. */
static bool curl_has_body(const sl_http_transfer *transfer)
{
    const char *method = transfer->method;
    return transfer->request_body || transfer->is_upload || strcmp(method, "POST") == 0 ||
           strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0;
}

/** A value of nothing is written "Name;": "Name:" would take the header away. */
static char *curl_header_line(char *line, size_t length)
{
    if (line[length - 1] == ' ' && line[length - 2] == ':') {
        line[length - 2] = ';';
        line[length - 1] = '\0';
    }
    return line;
}

static bool curl_set_headers(sl_curl_handle *handle, sl_http_transfer *transfer)
{
    /* a list is of char *, but libcurl only reads it */
    static const char no_expect[] = "Expect:", no_type[] = "Content-Type:";
    static const char chunked[] = "Transfer-Encoding: chunked", agent[] = "User-Agent: sluice";
    if (!curl_reserve_nodes(handle, transfer->line_count + 5))
        return false;
    struct curl_slist *nodes = handle->nodes;
    size_t used = 0;
    /* libcurl compares each line with each header it knows: none more than needed */
    if (transfer->is_upload || transfer->request_body_size >= CURL_EXPECTS_FROM)
        nodes[used++].data = (char *)no_expect;
    if (!transfer->has_content_type && curl_has_body(transfer))
        nodes[used++].data = (char *)no_type;
    if (transfer->is_upload)
        nodes[used++].data = (char *)chunked;
    /* libcurl writes its own of these two letter by letter, and then again into the request */
    if (!transfer->has_user_agent)
        nodes[used++].data = (char *)agent;
    if (transfer->decompress && !transfer->has_accept_encoding)
        nodes[used++].data = handle->wire->accept_encoding;
    char *line = transfer->lines.data;
    for (size_t i = 0; i < transfer->line_count; i++) {
        size_t length = strlen(line);
        nodes[used++].data = curl_header_line(line, length);
        line += length + 1;
    }
    for (size_t i = 0; i < used; i++)
        nodes[i].next = i + 1 < used ? &nodes[i + 1] : NULL;
    curl_easy_setopt(handle->easy, CURLOPT_HTTPHEADER, used > 0 ? nodes : NULL);
    return true;
}

static void curl_set_method(sl_curl_handle *handle, const sl_http_transfer *transfer)
{
    CURL *easy = handle->easy;
    const char *method = transfer->method, *usual = "GET";
    bool is_head = strcmp(method, "HEAD") == 0;
    if (handle->is_head && !is_head)
        curl_easy_setopt(easy, CURLOPT_NOBODY, 0L);
    handle->is_head = is_head;
    if (is_head) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
        usual = "HEAD";
    } else if (curl_has_body(transfer)) {
        const char *body = transfer->request_body ? transfer->request_body : "";
        curl_off_t size = (curl_off_t)transfer->request_body_size;
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->is_upload ? NULL : body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                         transfer->is_upload ? (curl_off_t)-1 : size);
        usual = "POST";
    } else {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    bool custom = strcmp(method, usual) != 0;
    if (custom || handle->has_custom)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, custom ? method : NULL);
    handle->has_custom = custom;
}

static void curl_set_verification(sl_curl_handle *handle, const sl_http_transfer *transfer)
{
    CURL *easy = handle->easy;
    if (handle->is_unverified == transfer->verify) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, transfer->verify ? 1L : 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, transfer->verify ? 2L : 0L);
        handle->is_unverified = !transfer->verify;
    }
    if (transfer->ca_file || handle->has_ca_file) {
        const char *file = transfer->ca_file ? transfer->ca_file : handle->wire->ca_file;
        curl_easy_setopt(easy, CURLOPT_CAINFO, file);
        handle->has_ca_file = transfer->ca_file != NULL;
    }
}

/** Hands the addresses over, so that libcurl resolves nothing: it would start a thread. */
static bool curl_set_addresses(sl_curl_handle *handle, const sl_http_transfer *transfer)
{
    const char *addresses = transfer->lookup.addresses;
    if (!addresses) {
        if (handle->has_resolve)
            curl_easy_setopt(handle->easy, CURLOPT_RESOLVE, NULL);
        handle->has_resolve = false;
        return true;
    }
    const sl_http_proxy *proxy = transfer->proxy;
    const char *name = proxy ? proxy->host : transfer->target->host->name;
    unsigned port = proxy ? proxy->port : transfer->target->host->port;
    size_t size = strlen(name) + strlen(addresses) + 10;
    if (size > handle->resolve_capacity) {
        char *text = sl_realloc(handle->wire->core, handle->resolve.data, size);
        if (!text)
            return false;
        handle->resolve.data = text;
        handle->resolve_capacity = size;
    }
    /* "+": the entry may grow old, the one of a later transfer replaces it */
    snprintf(handle->resolve.data, size, "+%s:%u:%s", name, port, addresses);
    curl_easy_setopt(handle->easy, CURLOPT_RESOLVE, &handle->resolve);
    handle->has_resolve = true;
    return true;
}

static void curl_set_encoding(sl_curl_handle *handle, const sl_http_transfer *transfer)
{
    if (handle->is_raw == !transfer->decompress)
        return;
    handle->is_raw = !transfer->decompress;
    curl_easy_setopt(handle->easy, CURLOPT_ACCEPT_ENCODING, handle->is_raw ? NULL : "");
}

static void curl_set_proxy(sl_curl_handle *handle, const sl_http_transfer *transfer)
{
    if (handle->proxy == transfer->proxy)
        return;
    handle->proxy = transfer->proxy;
    curl_easy_setopt(handle->easy, CURLOPT_PROXY, handle->proxy ? handle->proxy->url : "");
    /* a CONNECT has no lines of ours */
    curl_easy_setopt(handle->easy, CURLOPT_USERAGENT, handle->proxy ? "sluice" : NULL);
}

/**
 * Milliseconds; 0: libcurl's own. The engine's timer is the limit; libcurl's shares its time out
 * among several addresses. A limit of its own stays among its timers until it has passed, though
 * the connection is there, and they are sorted anew at each piece of an answer.
 */
static long curl_connect_limit(const sl_http_transfer *transfer)
{
    enum { LIBCURLS_OWN = 300 * 1000 };
    int64_t limit = transfer->limits[SL_HTTP_CONNECT] / 1000 + 1;
    if (limit == 1 || limit > INT_MAX)
        limit = INT_MAX;
    const char *addresses = transfer->lookup.addresses;
    bool has_several = addresses && strchr(addresses, ',');
    return has_several || limit > LIBCURLS_OWN ? (long)limit : 0;
}

int sl_curl_handle_prepare(sl_curl_handle *handle, sl_http_transfer *transfer)
{
    CURL *easy = handle->easy;
    handle->error[0] = '\0';
    curl_easy_setopt(easy, CURLOPT_CURLU, transfer->target->url);
    curl_set_method(handle, transfer);
    curl_set_encoding(handle, transfer);
    curl_set_proxy(handle, transfer);
    if (transfer->target->secure)
        curl_set_verification(handle, transfer);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, curl_connect_limit(transfer));
    if (!curl_set_headers(handle, transfer) || !curl_set_addresses(handle, transfer))
        return -1;
    return 0;
}
