/* SPDX-License-Identifier: MIT */
/* The cache of names and their single flight, and c-ares on the core's loop below it. */
#include "resolver.h"

#include <ares.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define RESOLVER_SECOND INT64_C(1000000)

enum {
    RESOLVER_BUCKETS = 128,
    /** Names kept; above it the cache is swept. */
    RESOLVER_MAX_ENTRIES = 512,
    /** Addresses handed over for one name. */
    RESOLVER_MAX_ADDRESSES = 16,
    /** Room for one address with brackets and comma. */
    RESOLVER_ADDRESS_SIZE = INET6_ADDRSTRLEN + 3,
    /** Seconds. An answer from /etc/hosts has a TTL of 0 and is kept for the least. */
    RESOLVER_LEAST_TTL = 1,
    RESOLVER_MOST_TTL = 60,
    /** Seconds for which an old answer is used when the servers fail (not when they deny). */
    RESOLVER_STALE = 3600,
    RESOLVER_STALE_AGAIN = 5,
    /** Of one try; c-ares doubles it at each round. Its own 5 s would be half of a connect limit.
     */
    RESOLVER_TRY_MS = 2000,
    RESOLVER_TRIES = 3,
};

struct resolver_list {
    sl_lookup *first, *last;
};

typedef struct resolver_entry {
    struct resolver_entry *next;
    /** In the list of answers to be delivered. */
    struct resolver_entry *next_finished;
    sl_resolver *resolver;
    struct resolver_list waiting;
    bool pending, finished;
    /** When the addresses came, and when they are asked for again. */
    int64_t answered, expires;
    char *addresses;
    const char *failure;
    char name[];
} resolver_entry;

typedef struct resolver_socket {
    sl_io io;
    sl_resolver *resolver;
    struct resolver_socket *next;
} resolver_socket;

struct sl_resolver {
    sl_core *core;
    /** NULL until the first name. */
    ares_channel channel;
    char *servers;
    bool over_tcp, closing;
    /** Of /etc/resolv.conf, when the channel was made. */
    struct timespec configured;
    sl_timer timer;
    resolver_socket *sockets;
    resolver_entry *buckets[RESOLVER_BUCKETS];
    size_t entries, pending;
    resolver_entry *finished;
};

/* ---- lists of lookups ---- */

static void resolver_list_add(struct resolver_list *list, sl_lookup *lookup)
{
    lookup->list = list;
    lookup->next = NULL;
    lookup->previous = list->last;
    if (list->last)
        list->last->next = lookup;
    else
        list->first = lookup;
    list->last = lookup;
}

void sl_lookup_stop(sl_lookup *lookup)
{
    struct resolver_list *list = lookup->list;
    if (!list)
        return;
    if (lookup->previous)
        lookup->previous->next = lookup->next;
    else
        list->first = lookup->next;
    if (lookup->next)
        lookup->next->previous = lookup->previous;
    else
        list->last = lookup->previous;
    lookup->list = NULL;
    lookup->next = lookup->previous = NULL;
}

/* ---- the cache ---- */

static resolver_entry **resolver_bucket(sl_resolver *resolver, const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 16777619u;
    return &resolver->buckets[hash % RESOLVER_BUCKETS];
}

static void resolver_entry_free(sl_resolver *resolver, resolver_entry *entry)
{
    sl_free(resolver->core, entry->addresses);
    sl_free(resolver->core, entry);
    resolver->entries--;
}

/** Drops what nobody waits for: what has expired, or all of it. */
static void resolver_sweep(sl_resolver *resolver, bool all)
{
    int64_t now = sl_now(resolver->core);
    for (size_t i = 0; i < RESOLVER_BUCKETS; i++) {
        resolver_entry **link = &resolver->buckets[i];
        while (*link) {
            resolver_entry *entry = *link;
            bool keep = entry->pending || entry->finished || (!all && entry->expires > now);
            if (keep) {
                link = &entry->next;
                continue;
            }
            *link = entry->next;
            resolver_entry_free(resolver, entry);
        }
    }
}

static resolver_entry *resolver_entry_of(sl_resolver *resolver, const char *name)
{
    resolver_entry **bucket = resolver_bucket(resolver, name);
    for (resolver_entry *entry = *bucket; entry; entry = entry->next)
        if (strcmp(entry->name, name) == 0)
            return entry;
    if (resolver->entries >= RESOLVER_MAX_ENTRIES)
        resolver_sweep(resolver, false);
    if (resolver->entries >= RESOLVER_MAX_ENTRIES)
        resolver_sweep(resolver, true);
    size_t length = strlen(name);
    resolver_entry *entry = sl_alloc_array(resolver->core, 1, sizeof *entry + length + 1);
    if (!entry)
        return NULL;
    memcpy(entry->name, name, length + 1);
    entry->resolver = resolver;
    entry->next = *bucket;
    *bucket = entry;
    resolver->entries++;
    return entry;
}

/* ---- answers ---- */

static size_t resolver_print_address(char *out, const struct sockaddr *address)
{
    char text[INET6_ADDRSTRLEN];
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
        if (!inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text))
            return 0;
        return (size_t)snprintf(out, RESOLVER_ADDRESS_SIZE, "%s,", text);
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
        if (!inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text))
            return 0;
        return (size_t)snprintf(out, RESOLVER_ADDRESS_SIZE, "[%s],", text);
    }
    return 0;
}

/** The addresses as text and the least TTL among them; NULL without an address or memory. */
static char *resolver_print(sl_core *core, const struct ares_addrinfo *info, int *ttl)
{
    char *text = sl_alloc(core, RESOLVER_MAX_ADDRESSES * RESOLVER_ADDRESS_SIZE);
    if (!text)
        return NULL;
    size_t used = 0, count = 0;
    *ttl = RESOLVER_MOST_TTL;
    for (const struct ares_addrinfo_node *node = info->nodes;
         node && count < RESOLVER_MAX_ADDRESSES; node = node->ai_next) {
        size_t size = resolver_print_address(text + used, node->ai_addr);
        if (size == 0)
            continue;
        used += size;
        count++;
        if (node->ai_ttl < *ttl)
            *ttl = node->ai_ttl;
    }
    if (count == 0) {
        sl_free(core, text);
        return NULL;
    }
    text[used - 1] = '\0';
    if (*ttl < RESOLVER_LEAST_TTL)
        *ttl = RESOLVER_LEAST_TTL;
    return text;
}

static const char *resolver_failure(int status)
{
    switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
    case ARES_EBADNAME:
        return "no such host";
    case ARES_ETIMEOUT:
        return "the name servers do not answer";
    case ARES_ECONNREFUSED:
    case ARES_ESERVFAIL:
    case ARES_EREFUSED:
        /* c-ares says "refused" of a server that has failed, too */
        return "the name servers cannot be reached, or fail";
    case ARES_ENOMEM:
        return "not enough memory";
    default:
        return "the name servers gave an answer that cannot be read";
    }
}

static void resolver_settle(resolver_entry *entry, int status, char *addresses, int ttl)
{
    sl_core *core = entry->resolver->core;
    int64_t now = sl_now(core);
    if (addresses) {
        sl_free(core, entry->addresses);
        entry->addresses = addresses;
        entry->failure = NULL;
        entry->answered = now;
        entry->expires = now + ttl * RESOLVER_SECOND;
        return;
    }
    bool denied = status == ARES_ENOTFOUND || status == ARES_ENODATA || status == ARES_SUCCESS;
    bool usable = entry->addresses && now < entry->answered + RESOLVER_STALE * RESOLVER_SECOND;
    if (!denied && usable) {
        entry->expires = now + RESOLVER_STALE_AGAIN * RESOLVER_SECOND;
        return;
    }
    sl_free(core, entry->addresses);
    entry->addresses = NULL;
    entry->expires = 0;
    entry->failure = resolver_failure(status == ARES_SUCCESS ? ARES_ENODATA : status);
}

static void resolver_on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    (void)timeouts;
    resolver_entry *entry = arg;
    sl_resolver *resolver = entry->resolver;
    int ttl = 0;
    char *addresses = NULL;
    if (status == ARES_SUCCESS && info)
        addresses = resolver_print(resolver->core, info, &ttl);
    if (info)
        ares_freeaddrinfo(info);
    entry->pending = false;
    resolver->pending--;
    resolver_settle(entry, status, addresses, ttl);
    if (!resolver->closing && entry->waiting.first) {
        entry->finished = true;
        entry->next_finished = resolver->finished;
        resolver->finished = entry;
    }
}

static void resolver_fill(sl_lookup *lookup, const resolver_entry *entry)
{
    lookup->addresses = entry->addresses;
    lookup->failure = entry->addresses ? NULL : entry->failure;
}

/** Tells who waited. Not from inside c-ares: what they do next may ask it again. */
static void resolver_deliver(sl_resolver *resolver)
{
    while (resolver->finished) {
        resolver_entry *entry = resolver->finished;
        resolver->finished = entry->next_finished;
        struct resolver_list told = {NULL, NULL};
        while (entry->waiting.first) {
            sl_lookup *lookup = entry->waiting.first;
            sl_lookup_stop(lookup);
            resolver_fill(lookup, entry);
            resolver_list_add(&told, lookup);
        }
        while (told.first) {
            sl_lookup *lookup = told.first;
            sl_lookup_stop(lookup);
            lookup->on_done(lookup);
        }
        entry->finished = false;
    }
}

/* ---- c-ares on the loop ---- */

static void resolver_schedule(sl_resolver *resolver)
{
    struct timeval wait;
    if (!resolver->channel || !ares_timeout(resolver->channel, NULL, &wait)) {
        sl_timer_stop(&resolver->timer);
        return;
    }
    int64_t delay = (int64_t)wait.tv_sec * RESOLVER_SECOND + wait.tv_usec;
    sl_timer_start(resolver->core, &resolver->timer, sl_now_update(resolver->core) + delay);
}

static void resolver_process(sl_resolver *resolver, int readable, int writable)
{
    ares_process_fd(resolver->channel, readable, writable);
    resolver_deliver(resolver);
    resolver_schedule(resolver);
}

static void resolver_on_due(sl_timer *timer)
{
    sl_resolver *resolver = (sl_resolver *)((char *)timer - offsetof(sl_resolver, timer));
    resolver_process(resolver, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void resolver_on_ready(sl_io *io, unsigned events)
{
    resolver_socket *socket = (resolver_socket *)io;
    int fd = io->fd;
    resolver_process(socket->resolver, (events & SL_READ) ? fd : ARES_SOCKET_BAD,
                     (events & SL_WRITE) ? fd : ARES_SOCKET_BAD);
}

static void resolver_on_socket(void *data, ares_socket_t fd, int readable, int writable)
{
    sl_resolver *resolver = data;
    resolver_socket **link = &resolver->sockets;
    while (*link && (*link)->io.fd != fd)
        link = &(*link)->next;
    resolver_socket *socket = *link;
    unsigned events = (readable ? SL_READ : 0u) | (writable ? SL_WRITE : 0u);
    if (!socket) {
        if (events == 0)
            return;
        socket = sl_alloc_array(resolver->core, 1, sizeof *socket);
        if (!socket)
            return; /* the query then ends by its time limit */
        socket->io.fd = fd;
        socket->io.on_ready = resolver_on_ready;
        socket->resolver = resolver;
        *link = socket;
    }
    sl_io_watch(resolver->core, &socket->io, events);
    if (events == 0) {
        *link = socket->next;
        sl_free(resolver->core, socket);
    }
}

static struct timespec resolver_configuration_time(void)
{
    struct stat facts;
    if (stat("/etc/resolv.conf", &facts) != 0)
        return (struct timespec){0, 0};
    return facts.st_mtim;
}

static const char *resolver_connect(sl_resolver *resolver)
{
    struct ares_options options = {
        .flags = resolver->over_tcp ? ARES_FLAG_USEVC : 0,
        .timeout = RESOLVER_TRY_MS,
        .tries = RESOLVER_TRIES,
        .sock_state_cb = resolver_on_socket,
        .sock_state_cb_data = resolver,
    };
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
    if (resolver->over_tcp)
        mask |= ARES_OPT_FLAGS;
    resolver->configured = resolver_configuration_time();
    if (ares_init_options(&resolver->channel, &options, mask) != ARES_SUCCESS) {
        resolver->channel = NULL;
        return "not enough memory";
    }
    if (resolver->servers &&
        ares_set_servers_ports_csv(resolver->channel, resolver->servers) != ARES_SUCCESS) {
        ares_destroy(resolver->channel);
        resolver->channel = NULL;
        return "name servers must be given as \"ADDRESS[:PORT],...\"";
    }
    return NULL;
}

/** A channel that knows the present /etc/resolv.conf: c-ares reads it only when it is made. */
static const char *resolver_refresh(sl_resolver *resolver)
{
    if (resolver->channel && resolver->pending == 0 && !resolver->servers) {
        struct timespec now = resolver_configuration_time();
        if (now.tv_sec != resolver->configured.tv_sec ||
            now.tv_nsec != resolver->configured.tv_nsec) {
            ares_destroy(resolver->channel);
            resolver->channel = NULL;
        }
    }
    return resolver->channel ? NULL : resolver_connect(resolver);
}

/* ---- the face ---- */

sl_resolver *sl_resolver_open(sl_core *core, const sl_resolver_options *options,
                              const char **reason)
{
    *reason = "not enough memory";
    sl_resolver *resolver = sl_alloc_array(core, 1, sizeof *resolver);
    if (!resolver)
        return NULL;
    resolver->core = core;
    resolver->over_tcp = options->over_tcp;
    resolver->timer.on_due = resolver_on_due;
    if (!options->servers)
        return resolver;
    size_t size = strlen(options->servers) + 1;
    resolver->servers = sl_alloc(core, size);
    if (resolver->servers) {
        memcpy(resolver->servers, options->servers, size);
        *reason = resolver_connect(resolver);
        if (!*reason)
            return resolver;
    }
    sl_resolver_close(resolver);
    return NULL;
}

void sl_resolver_close(sl_resolver *resolver)
{
    if (!resolver)
        return;
    resolver->closing = true;
    if (resolver->channel)
        ares_destroy(resolver->channel);
    sl_timer_stop(&resolver->timer);
    while (resolver->sockets) {
        resolver_socket *socket = resolver->sockets;
        resolver->sockets = socket->next;
        sl_io_watch(resolver->core, &socket->io, 0);
        sl_free(resolver->core, socket);
    }
    resolver_sweep(resolver, true);
    sl_free(resolver->core, resolver->servers);
    sl_free(resolver->core, resolver);
}

static void resolver_ask(sl_resolver *resolver, resolver_entry *entry)
{
    const char *reason = resolver_refresh(resolver);
    if (reason) {
        entry->failure = reason;
        return;
    }
    struct ares_addrinfo_hints hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
    };
    entry->pending = true;
    resolver->pending++;
    ares_getaddrinfo(resolver->channel, entry->name, NULL, &hints, resolver_on_answer, entry);
    resolver_schedule(resolver);
}

bool sl_lookup_start(sl_resolver *resolver, sl_lookup *lookup, const char *name)
{
    lookup->list = NULL;
    lookup->addresses = lookup->failure = NULL;
    resolver_entry *entry = resolver_entry_of(resolver, name);
    if (!entry) {
        lookup->failure = "not enough memory";
        return true;
    }
    bool fresh = entry->addresses && entry->expires > sl_now(resolver->core);
    if (!fresh && !entry->pending)
        resolver_ask(resolver, entry);
    if (!fresh && entry->pending) {
        resolver_list_add(&entry->waiting, lookup);
        return false;
    }
    resolver_fill(lookup, entry);
    return true;
}
