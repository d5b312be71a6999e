/* SPDX-License-Identifier: MIT */
/* The table of parsed URLs and of the hosts they go to. */
#include "target.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static sl_http_host *target_host(sl_http_targets *targets, const char *name, unsigned port)
{
    for (sl_http_host *host = targets->hosts; host; host = host->next) {
        if (host->port == port && strcmp(host->name, name) == 0) {
            host->refs++;
            return host;
        }
    }
    size_t size = strlen(name) + 1;
    sl_http_host *host = sl_alloc_array(targets->core, 1, sizeof *host + size);
    if (!host)
        return NULL;
    memcpy(host->name, name, size);
    host->port = port;
    host->refs = 1;
    host->next = targets->hosts;
    targets->hosts = host;
    return host;
}

static void target_host_release(sl_http_targets *targets, sl_http_host *host)
{
    if (!host || --host->refs > 0)
        return;
    sl_http_host **link = &targets->hosts;
    while (*link != host)
        link = &(*link)->next;
    *link = host->next;
    sl_free(targets->core, host);
}

bool sl_http_is_name(const char *host)
{
    static const char local[] = ".localhost";
    size_t length = strlen(host);
    struct in_addr address;
    if (host[0] == '[' || inet_pton(AF_INET, host, &address) == 1)
        return false;
    if (strcasecmp(host, local + 1) == 0)
        return false;
    return length < sizeof local || strcasecmp(host + length - (sizeof local - 1), local) != 0;
}

/** The pieces of a URL as libcurl gives them; freed together. */
typedef struct target_parts {
    char *scheme, *host, *shown_port, *port, *path;
} target_parts;

static void target_parts_free(target_parts *parts)
{
    curl_free(parts->scheme);
    curl_free(parts->host);
    curl_free(parts->shown_port);
    curl_free(parts->port);
    curl_free(parts->path);
}

static const char *target_read_parts(CURLU *url, target_parts *parts)
{
    if (curl_url_get(url, CURLUPART_SCHEME, &parts->scheme, 0) != CURLUE_OK)
        return "not enough memory";
    if (curl_url_get(url, CURLUPART_HOST, &parts->host, CURLU_PUNYCODE) != CURLUE_OK)
        return "the host of the URL is no name in ASCII and no address (write xn--... for others)";
    if (curl_url_get(url, CURLUPART_PORT, &parts->port, CURLU_DEFAULT_PORT) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_PATH, &parts->path, 0) != CURLUE_OK)
        return "not enough memory";
    /* there is none unless the URL shows it */
    curl_url_get(url, CURLUPART_PORT, &parts->shown_port, CURLU_NO_DEFAULT_PORT);
    return NULL;
}

static const char *target_fill(sl_http_targets *targets, sl_http_target *target,
                               const target_parts *parts)
{
    target->secure = strcmp(parts->scheme, "https") == 0;
    target->named = sl_http_is_name(parts->host);
    unsigned port = (unsigned)strtoul(parts->port, NULL, 10);
    target->host = target_host(targets, parts->host, port);
    size_t size = strlen(parts->scheme) + strlen(parts->host) + strlen(parts->path) + 16;
    target->label = sl_alloc(targets->core, size);
    if (!target->host || !target->label)
        return "not enough memory";
    const char *shown = parts->shown_port;
    snprintf(target->label, size, "%s://%s%s%s%s", parts->scheme, parts->host, shown ? ":" : "",
             shown ? shown : "", parts->path);
    return NULL;
}

/** libcurl's parser is generous: it guesses a scheme, and takes one slash or three for two. */
static const char *target_check_start(const char *text)
{
    size_t size = 0;
    if (strncasecmp(text, "http://", 7) == 0)
        size = 7;
    else if (strncasecmp(text, "https://", 8) == 0)
        size = 8;
    else
        return "the URL must begin with http:// or https://";
    return text[size] == '/' || text[size] == '\0' ? "the URL has no host" : NULL;
}

static const char *target_parse(sl_http_targets *targets, sl_http_target *target)
{
    target->url = curl_url();
    if (!target->url)
        return "not enough memory";
    if (strlen(target->text) != target->text_size)
        return "the URL holds a NUL byte";
    const char *reason = target_check_start(target->text);
    if (reason)
        return reason;
    CURLUcode code = curl_url_set(target->url, CURLUPART_URL, target->text, 0);
    if (code == CURLUE_OUT_OF_MEMORY)
        return "not enough memory";
    if (code != CURLUE_OK)
        return "the URL cannot be read (it may need percent-encoding)";
    target_parts parts = {0};
    reason = target_read_parts(target->url, &parts);
    if (!reason)
        reason = target_fill(targets, target, &parts);
    target_parts_free(&parts);
    return reason;
}

static void target_free(sl_http_targets *targets, sl_http_target *target)
{
    target_host_release(targets, target->host);
    curl_url_cleanup(target->url);
    sl_free(targets->core, target->text);
    sl_free(targets->core, target->label);
    sl_free(targets->core, target);
}

void sl_http_target_release(sl_http_targets *targets, sl_http_target *target)
{
    if (target && --target->refs == 0)
        target_free(targets, target);
}

static sl_http_target *target_new(sl_http_targets *targets, const char *url, size_t size,
                                  const char **reason)
{
    *reason = "not enough memory";
    sl_http_target *target = sl_alloc_array(targets->core, 1, sizeof *target);
    if (!target)
        return NULL;
    target->text = sl_alloc(targets->core, size + 1);
    if (target->text) {
        memcpy(target->text, url, size + 1);
        target->text_size = size;
        *reason = target_parse(targets, target);
    }
    if (!*reason)
        return target;
    target_free(targets, target);
    return NULL;
}

sl_http_target *sl_http_target_get(sl_http_targets *targets, const char *url, size_t size,
                                   const char **reason)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)url[i]) * 16777619u;
    sl_http_target **slot = &targets->slots[hash % SL_HTTP_TARGETS];
    sl_http_target *target = *slot;
    if (!target || target->hash != hash || target->text_size != size ||
        memcmp(target->text, url, size) != 0) {
        target = target_new(targets, url, size, reason);
        if (!target)
            return NULL;
        target->hash = hash;
        target->refs = 1;
        sl_http_target_release(targets, *slot);
        *slot = target;
    }
    target->refs++;
    return target;
}

void sl_http_targets_fini(sl_http_targets *targets)
{
    for (size_t i = 0; i < SL_HTTP_TARGETS; i++) {
        sl_http_target_release(targets, targets->slots[i]);
        targets->slots[i] = NULL;
    }
}
