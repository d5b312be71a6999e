/* SPDX-License-Identifier: MIT */
/*
 * Names to addresses without blocking the loop: c-ares on the core's descriptors and timers.
 *
 * One query at a time for each name, whoever asks; answers are kept for their TTL, at most 60 s.
 * What c-ares knows of the system: /etc/resolv.conf, /etc/hosts, the order "files, dns" of
 * nsswitch.conf, search domains. What it does not: every other service of nsswitch.conf (mdns,
 * LDAP, myhostname, mymachines, systemd's resolve).
 *
 * An engine without lua.h, shared by modules.
 */
#ifndef SL_RESOLVER_H
#define SL_RESOLVER_H

#include "core/core.h"

typedef struct sl_resolver sl_resolver;

/** Zeroed means the system's settings. */
typedef struct sl_resolver_options {
    /** "ADDRESS[:PORT],..." instead of those of /etc/resolv.conf; copied. */
    const char *servers;
    /** Ask over TCP, as `options use-vc` in resolv.conf. */
    bool over_tcp;
} sl_resolver_options;

/** A question, embedded in its owner, who must stop it before freeing it. */
typedef struct sl_lookup sl_lookup;
struct sl_lookup {
    /** Called once from the loop. */
    void (*on_done)(sl_lookup *lookup);
    /** "192.0.2.1,[2001:db8::1]", best first, NULL on failure; valid until the next call of ours.
     */
    const char *addresses;
    /** Why there is none; static text. */
    const char *failure;
    /* the rest is the resolver's */
    struct resolver_list *list;
    sl_lookup *next, *previous;
};

/** NULL without memory, or when the servers cannot be read; `reason` then is a static text. */
sl_resolver *sl_resolver_open(sl_core *core, const sl_resolver_options *options,
                              const char **reason);
/** Takes NULL. Nobody may be waiting any more. */
void sl_resolver_close(sl_resolver *resolver);

/**
 * Asks. Returns true when the answer is there at once (the fields are set, on_done is not called),
 * false when on_done will be called.
 */
bool sl_lookup_start(sl_resolver *resolver, sl_lookup *lookup, const char *name);
/** Idempotent. The query goes on for whoever asks next. */
void sl_lookup_stop(sl_lookup *lookup);

#endif
