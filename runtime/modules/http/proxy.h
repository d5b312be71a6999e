/* SPDX-License-Identifier: MIT */
/* Which requests go by a proxy, and where it is. An engine without lua.h. */
#ifndef SL_HTTP_PROXY_H
#define SL_HTTP_PROXY_H

#include "core/core.h"

typedef struct sl_http_proxy {
    /** With scheme and port; NULL: there is none. */
    char *url;
    char *host;
    unsigned port;
    /** The host is a name that must be resolved by us. */
    bool named;
} sl_http_proxy;

/**
 * Reads "[http|https|socks5h://][user:password@]host[:port]"; http and the port of the scheme where
 * nothing is said. NULL, or what is wrong (static text). `text` may be NULL: no proxy.
 */
const char *sl_http_proxy_init(sl_core *core, sl_http_proxy *proxy, const char *text);
void sl_http_proxy_fini(sl_core *core, sl_http_proxy *proxy);

/**
 * Whether the host is on a list as of no_proxy: "*", names (which mean the names below them too,
 * with or without a dot in front), addresses, and ranges such as 10.0.0.0/8; by commas or blanks.
 * An address in brackets is IPv6. `list` may be NULL.
 */
bool sl_http_proxy_is_exempt(const char *list, const char *host);

#endif
