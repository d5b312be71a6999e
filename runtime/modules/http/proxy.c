/* SPDX-License-Identifier: MIT */
/* Proxies: their URLs and the hosts that need none. */
#include "proxy.h"

#include "target.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static char *proxy_copy(sl_core *core, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = sl_alloc(core, size);
    if (copy)
        memcpy(copy, text, size);
    return copy;
}

/** The port that is used where none is given; NULL for a scheme that we do not take. */
static const char *proxy_default_port(const char *scheme)
{
    static const char *const known[][2] = {{"http", "80"}, {"https", "443"}, {"socks5h", "1080"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcasecmp(scheme, known[i][0]) == 0)
            return known[i][1];
    }
    return NULL;
}

static const char *proxy_fill(sl_core *core, sl_http_proxy *proxy, CURLU *url)
{
    char *scheme = NULL, *port = NULL, *host = NULL, *text = NULL;
    const char *reason = "not enough memory";
    if (curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK) {
        const char *usual = proxy_default_port(scheme);
        reason = "a proxy is http://, https:// or socks5h://";
        if (usual && curl_url_get(url, CURLUPART_PORT, &port, 0) != CURLUE_OK)
            curl_url_set(url, CURLUPART_PORT, usual, 0);
        curl_free(port);
        port = NULL;
        if (usual && curl_url_get(url, CURLUPART_PORT, &port, 0) == CURLUE_OK &&
            curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
            curl_url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK) {
            proxy->port = (unsigned)strtoul(port, NULL, 10);
            proxy->named = sl_http_is_name(host);
            proxy->host = proxy_copy(core, host);
            proxy->url = proxy_copy(core, text);
            reason = proxy->host && proxy->url ? NULL : "not enough memory";
        }
    }
    curl_free(scheme);
    curl_free(port);
    curl_free(host);
    curl_free(text);
    return reason;
}

const char *sl_http_proxy_init(sl_core *core, sl_http_proxy *proxy, const char *text)
{
    *proxy = (sl_http_proxy){0};
    if (!text)
        return NULL;
    CURLU *url = curl_url();
    if (!url)
        return "not enough memory";
    const char *prefix = strstr(text, "://") ? "" : "http://", *reason = "not enough memory";
    size_t size = strlen(prefix) + strlen(text) + 1;
    char *full = sl_alloc(core, size);
    if (full) {
        snprintf(full, size, "%s%s", prefix, text);
        reason = curl_url_set(url, CURLUPART_URL, full, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK
                     ? proxy_fill(core, proxy, url)
                     : "the URL of the proxy cannot be read";
    }
    sl_free(core, full);
    curl_url_cleanup(url);
    return reason;
}

void sl_http_proxy_fini(sl_core *core, sl_http_proxy *proxy)
{
    sl_free(core, proxy->url);
    sl_free(core, proxy->host);
    *proxy = (sl_http_proxy){0};
}

/* ---- who needs none ---- */

/** Bytes of an address, 4 or 16; 0 for what is none. */
static size_t proxy_address(const char *text, size_t size, unsigned char *bytes)
{
    char copy[64];
    if (size > 1 && text[0] == '[' && text[size - 1] == ']') {
        text++;
        size -= 2;
    }
    if (size >= sizeof copy)
        return 0;
    memcpy(copy, text, size);
    copy[size] = '\0';
    if (inet_pton(AF_INET, copy, bytes) == 1)
        return 4;
    return inet_pton(AF_INET6, copy, bytes) == 1 ? 16 : 0;
}

static bool proxy_in_range(const char *entry, size_t size, const unsigned char *address,
                           size_t width)
{
    const char *slash = memchr(entry, '/', size);
    unsigned char start[16];
    size_t length = slash ? (size_t)(slash - entry) : size;
    if (proxy_address(entry, length, start) != width)
        return false;
    unsigned long bits = slash ? strtoul(slash + 1, NULL, 10) : width * 8;
    if (bits > width * 8)
        return false;
    size_t whole = bits / 8;
    if (memcmp(start, address, whole) != 0)
        return false;
    unsigned rest = (unsigned)bits % 8;
    return rest == 0 || (start[whole] ^ address[whole]) >> (8 - rest) == 0;
}

static bool proxy_is_below(const char *entry, size_t size, const char *host, size_t length)
{
    if (size > 0 && *entry == '.') {
        entry++;
        size--;
    }
    if (size == 0 || size > length || strncasecmp(host + length - size, entry, size) != 0)
        return false;
    return size == length || host[length - size - 1] == '.';
}

bool sl_http_proxy_is_exempt(const char *list, const char *host)
{
    static const char between[] = ", \t";
    if (!list)
        return false;
    unsigned char address[16];
    size_t length = strlen(host), width = proxy_address(host, length, address);
    for (const char *at = list + strspn(list, between); *at; at += strspn(at, between)) {
        size_t size = strcspn(at, between);
        if (size == 1 && *at == '*')
            return true;
        if (width ? proxy_in_range(at, size, address, width)
                  : proxy_is_below(at, size, host, length))
            return true;
        at += size;
    }
    return false;
}
