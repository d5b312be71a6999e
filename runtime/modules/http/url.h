/* SPDX-License-Identifier: MIT */
/* Where a redirect leads; what a URL's origin is. An engine without lua.h. */
#ifndef SL_HTTP_URL_H
#define SL_HTTP_URL_H

#include <stdbool.h>
#include <stddef.h>

typedef struct sl_http_join {
    /** Scheme, host and port are those of the base. */
    bool same_origin;
    /** From https to http. */
    bool downgrade;
} sl_http_join;

/** Bytes that an absolute URL made of these two may take, with its NUL. */
size_t sl_http_join_room(const char *base, const char *reference);
/**
 * Writes the absolute URL of a reference (RFC 3986, 5.2) against `base` to `out`; spaces and bytes
 * above 0x7F are percent-encoded. NULL, or why there is no URL to go to (static text): only http
 * and https are.
 */
const char *sl_http_join_urls(sl_http_join *join, const char *base, const char *reference,
                              char *out, size_t room);

#endif
