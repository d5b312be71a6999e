/* SPDX-License-Identifier: MIT */
/* References of redirects against the URL they came from. */
#include "url.h"

#include <curl/curl.h>
#include <string.h>
#include <strings.h>

static bool url_is_same(CURLU *a, CURLU *b, CURLUPart part, unsigned flags)
{
    char *left = NULL, *right = NULL;
    bool same = curl_url_get(a, part, &left, flags) == CURLUE_OK &&
                curl_url_get(b, part, &right, flags) == CURLUE_OK && strcasecmp(left, right) == 0;
    curl_free(left);
    curl_free(right);
    return same;
}

static bool url_has_scheme(CURLU *url, const char *scheme)
{
    char *found = NULL;
    bool has = curl_url_get(url, CURLUPART_SCHEME, &found, 0) == CURLUE_OK &&
               strcasecmp(found, scheme) == 0;
    curl_free(found);
    return has;
}

static const char *url_write(CURLU *url, char *out, size_t room)
{
    char *text = NULL;
    curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0);
    if (curl_url_get(url, CURLUPART_URL, &text, 0) != CURLUE_OK)
        return "not enough memory";
    size_t size = strlen(text) + 1;
    if (size <= room)
        memcpy(out, text, size);
    curl_free(text);
    return size <= room ? NULL : "it is too long";
}

static const char *url_join(sl_http_join *join, CURLU *base, CURLU *url, const char *text,
                            const char *reference)
{
    if (curl_url_set(base, CURLUPART_URL, text, 0) != CURLUE_OK ||
        curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK)
        return "the URL it came from cannot be read";
    CURLUcode code =
        curl_url_set(url, CURLUPART_URL, reference, CURLU_URLENCODE | CURLU_ALLOW_SPACE);
    if (code == CURLUE_OUT_OF_MEMORY)
        return "not enough memory";
    if (code == CURLUE_UNSUPPORTED_SCHEME)
        return "it is neither http nor https";
    if (code != CURLUE_OK)
        return "it cannot be read";
    bool secure = url_has_scheme(url, "https");
    if (!secure && !url_has_scheme(url, "http"))
        return "it is neither http nor https";
    join->downgrade = !secure && url_has_scheme(base, "https");
    join->same_origin = url_is_same(base, url, CURLUPART_SCHEME, 0) &&
                        url_is_same(base, url, CURLUPART_HOST, 0) &&
                        url_is_same(base, url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
    return NULL;
}

size_t sl_http_join_room(const char *base, const char *reference)
{
    /* each byte of the reference may become three; "http://" and "/" */
    return strlen(base) + 3 * strlen(reference) + 16;
}

const char *sl_http_join_urls(sl_http_join *join, const char *base, const char *reference,
                              char *out, size_t room)
{
    CURLU *from = curl_url(), *to = curl_url();
    const char *reason = "not enough memory";
    if (from && to)
        reason = url_join(join, from, to, base, reference);
    if (!reason)
        reason = url_write(to, out, room);
    curl_url_cleanup(from);
    curl_url_cleanup(to);
    return reason;
}
