/* SPDX-License-Identifier: MIT */
/* The engine: who may start, which name becomes which address, and what happens at the end. */
#include "private.h"

#include <stdio.h>
#include <string.h>

/* ---- lists ---- */

static void http_list_remove(sl_http_transfer *transfer)
{
    struct http_list *list = transfer->list;
    if (!list)
        return;
    if (transfer->previous)
        transfer->previous->next = transfer->next;
    else
        list->first = transfer->next;
    if (transfer->next)
        transfer->next->previous = transfer->previous;
    else
        list->last = transfer->previous;
    transfer->next = transfer->previous = NULL;
    transfer->list = NULL;
}

void sl_http_list_move(sl_http_transfer *transfer, struct http_list *list)
{
    http_list_remove(transfer);
    if (!list)
        return;
    transfer->list = list;
    transfer->previous = list->last;
    if (list->last)
        list->last->next = transfer;
    else
        list->first = transfer;
    list->last = transfer;
}

/* ---- a slot, an address, a connection ---- */

static void http_connect(sl_http_transfer *transfer)
{
    sl_http_engine *engine = transfer->engine;
    transfer->state = SL_HTTP_CONNECTING;
    transfer->resolved = sl_now(engine->core);
    if (engine->wire->start(engine->wire, transfer) < 0)
        sl_http_on_failure(transfer, NULL, "connect", "not enough memory");
}

static void http_on_resolved(sl_http_transfer *transfer)
{
    if (transfer->lookup.addresses) {
        http_connect(transfer);
        return;
    }
    sl_http_failure_set(transfer, "ConnectError", "resolve", "name does not resolve: %s",
                        transfer->lookup.failure);
    sl_http_finish(transfer, SL_HTTP_FAILED);
}

static void http_on_lookup(sl_lookup *lookup)
{
    http_on_resolved((sl_http_transfer *)((char *)lookup - offsetof(sl_http_transfer, lookup)));
}

static const sl_http_proxy *http_proxy_of(const sl_http_engine *engine,
                                          const sl_http_target *target)
{
    const sl_http_proxy *proxy = target->secure ? &engine->https_proxy : &engine->http_proxy;
    if (!proxy->url || sl_http_proxy_is_exempt(engine->no_proxy, target->host->name))
        return NULL;
    return proxy;
}

static void http_begin(sl_http_transfer *transfer)
{
    sl_http_engine *engine = transfer->engine;
    engine->active++;
    transfer->target->host->active++;
    transfer->has_slot = true;
    transfer->admitted = sl_now(engine->core);
    sl_http_list_move(transfer, &engine->running);
    transfer->proxy = http_proxy_of(engine, transfer->target);
    bool named = transfer->proxy ? transfer->proxy->named : transfer->target->named;
    if (!named || engine->is_local) {
        http_connect(transfer);
        return;
    }
    const char *name = transfer->proxy ? transfer->proxy->host : transfer->target->host->name;
    transfer->state = SL_HTTP_RESOLVING;
    transfer->lookup.on_done = http_on_lookup;
    if (sl_lookup_start(engine->resolver, &transfer->lookup, name))
        http_on_resolved(transfer);
}

static bool http_has_room(const sl_http_engine *engine, const sl_http_transfer *transfer)
{
    if (engine->closing)
        return false;
    if (engine->max_connections && engine->active >= engine->max_connections)
        return false;
    return !engine->max_per_host || transfer->target->host->active < engine->max_per_host;
}

void sl_http_admit(sl_http_transfer *transfer)
{
    sl_http_engine *engine = transfer->engine;
    if (http_has_room(engine, transfer)) {
        http_begin(transfer);
    } else if (engine->max_waiting && engine->waiting_count >= engine->max_waiting) {
        sl_http_failure_set(transfer, "QueueFull", "queue",
                            "%u requests wait for a connection already (max_waiting)",
                            engine->max_waiting);
        sl_http_finish(transfer, SL_HTTP_FAILED);
    } else {
        engine->waiting_count++;
        sl_http_list_move(transfer, &engine->waiting);
    }
    if (transfer->state < SL_HTTP_DONE)
        sl_http_limits_start(transfer);
}

/** One slot has become free: the first that it suits gets it. */
static void http_admit_next(sl_http_engine *engine)
{
    if (engine->max_connections && engine->active >= engine->max_connections)
        return;
    for (sl_http_transfer *transfer = engine->waiting.first; transfer; transfer = transfer->next) {
        if (http_has_room(engine, transfer)) {
            engine->waiting_count--;
            http_begin(transfer);
            if (transfer->state < SL_HTTP_DONE)
                sl_http_limits_update(transfer);
            return;
        }
    }
}

void sl_http_finish(sl_http_transfer *transfer, enum sl_http_state state)
{
    sl_http_engine *engine = transfer->engine;
    sl_lookup_stop(&transfer->lookup);
    sl_timer_stop(&transfer->timer);
    transfer->ended = sl_now_update(engine->core);
    transfer->state = state;
    bool had_slot = transfer->has_slot;
    if (had_slot) {
        transfer->has_slot = false;
        transfer->target->host->active--;
        engine->active--;
    } else if (transfer->list == &engine->waiting) {
        engine->waiting_count--;
    }
    sl_http_target_release(&engine->targets, transfer->target);
    transfer->target = NULL;
    sl_http_list_move(transfer, &engine->finished);
    if (transfer->on_change)
        transfer->on_change(transfer);
    if (had_slot && engine->waiting_count > 0)
        http_admit_next(engine);
}

void sl_http_abort(sl_http_transfer *transfer)
{
    sl_http_wire *wire = transfer->engine->wire;
    if (transfer->wire)
        wire->stop(wire, transfer);
    sl_http_finish(transfer, SL_HTTP_FAILED);
}

/* ---- its life ---- */

static bool http_read_proxies(sl_http_engine *engine, const sl_http_engine_options *options,
                              const char **reason)
{
    sl_core *core = engine->core;
    const char *wrong = sl_http_proxy_init(core, &engine->http_proxy, options->http_proxy);
    if (!wrong)
        wrong = sl_http_proxy_init(core, &engine->https_proxy, options->https_proxy);
    if (!wrong && options->no_proxy) {
        size_t size = strlen(options->no_proxy) + 1;
        engine->no_proxy = sl_alloc(core, size);
        if (engine->no_proxy)
            memcpy(engine->no_proxy, options->no_proxy, size);
        else
            wrong = "not enough memory";
    }
    if (wrong)
        *reason = wrong;
    return !wrong;
}

/** What goes by the way of a proxy, a unix socket or name servers must be granted as well. */
static const char *http_refuse_ways(const sl_http_engine *engine,
                                    const sl_http_engine_options *options)
{
    const sl_http_proxy *proxies[] = {&engine->http_proxy, &engine->https_proxy};
    const char *reason = NULL;
    for (size_t i = 0; i < 2 && !reason; i++)
        if (proxies[i]->url)
            reason = sl_refuse_connection(engine->core, proxies[i]->host, proxies[i]->port);
    char path[sizeof "unix:" + 256];
    if (!reason && options->unix_path) {
        snprintf(path, sizeof path, "unix:%s", options->unix_path);
        reason = sl_refuse_connection(engine->core, path, 0);
    }
    if (!reason && options->resolver.servers)
        reason = sl_refuse_connection(engine->core, NULL, 0);
    return reason;
}

sl_http_engine *sl_http_engine_open(sl_core *core, const sl_http_engine_options *options,
                                    const char **reason)
{
    *reason = "not enough memory";
    sl_http_engine *engine = sl_alloc_array(core, 1, sizeof *engine);
    if (!engine)
        return NULL;
    engine->core = core;
    engine->targets.core = core;
    engine->max_connections = options->max_connections;
    engine->max_per_host = options->max_per_host;
    engine->max_waiting = options->max_waiting;
    engine->is_local = options->unix_path != NULL;
    bool readable = http_read_proxies(engine, options, reason);
    const char *refusal = readable ? http_refuse_ways(engine, options) : NULL;
    if (refusal)
        *reason = refusal;
    else if (readable)
        engine->resolver = sl_resolver_open(core, &options->resolver, reason);
    if (engine->resolver) {
        engine->wire = sl_http_curl_open(core, options);
        if (engine->wire)
            return engine;
        *reason = "not enough memory";
    }
    sl_http_engine_close(engine);
    return NULL;
}

void sl_http_engine_warm_up(sl_http_engine *engine)
{
    engine->wire->warm_up(engine->wire);
}

static void http_close_all(struct http_list *list)
{
    while (list->first) {
        sl_http_transfer *transfer = list->first;
        if (!sl_http_transfer_is_over(transfer)) {
            sl_http_failure_set(transfer, "ConnectError", sl_http_phase(transfer),
                                "the client was closed");
            sl_http_abort(transfer);
        }
        sl_http_transfer_release(transfer);
    }
}

void sl_http_engine_close(sl_http_engine *engine)
{
    if (!engine)
        return;
    engine->closing = true;
    http_close_all(&engine->waiting);
    http_close_all(&engine->running);
    http_close_all(&engine->finished);
    if (engine->wire)
        engine->wire->close(engine->wire);
    sl_resolver_close(engine->resolver);
    sl_http_targets_fini(&engine->targets);
    sl_http_proxy_fini(engine->core, &engine->http_proxy);
    sl_http_proxy_fini(engine->core, &engine->https_proxy);
    sl_free(engine->core, engine->no_proxy);
    sl_http_spare_free(engine);
    sl_free(engine->core, engine);
}

void sl_http_engine_stats(const sl_http_engine *engine, sl_http_stats *stats)
{
    size_t open = engine->wire->count(engine->wire);
    stats->open = open;
    stats->active = engine->active;
    stats->idle = open > engine->active ? open - engine->active : 0;
    stats->waiting = engine->waiting_count;
}
