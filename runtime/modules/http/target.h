/* SPDX-License-Identifier: MIT */
/* Parsed URLs: most requests of a program go to a few of them, so each is parsed once. */
#ifndef SL_HTTP_TARGET_H
#define SL_HTTP_TARGET_H

#include "core/core.h"

#include <curl/curl.h>

/** A host and port, and the requests to it that have a slot. */
typedef struct sl_http_host sl_http_host;
struct sl_http_host {
    sl_http_host *next;
    size_t refs;
    size_t active;
    unsigned port;
    char name[];
};

/** Shared, not changed after it was made. */
typedef struct sl_http_target sl_http_target;
struct sl_http_target {
    size_t refs;
    uint32_t hash;
    CURLU *url;
    sl_http_host *host;
    /** The host is a name that must be resolved by us: not an address, not localhost. */
    bool named;
    bool secure;
    /** As it was given, to find it again. */
    char *text;
    size_t text_size;
    /** Without user, password, query, fragment. */
    char *label;
};

enum {
    SL_HTTP_TARGETS = 256,
};

/** Direct-mapped: another URL with the same slot replaces the one before. */
typedef struct sl_http_targets {
    sl_core *core;
    sl_http_target *slots[SL_HTTP_TARGETS];
    sl_http_host *hosts;
} sl_http_targets;

/** Whether a host of a URL is a name to resolve: not an address, not localhost. */
bool sl_http_is_name(const char *host);
/** With a reference; NULL on failure, `reason` then is a static text. */
sl_http_target *sl_http_target_get(sl_http_targets *targets, const char *url, size_t size,
                                   const char **reason);
void sl_http_target_release(sl_http_targets *targets, sl_http_target *target);
/** Forgets all of them. */
void sl_http_targets_fini(sl_http_targets *targets);

#endif
