/* SPDX-License-Identifier: MIT */
/*
 * Bytes by key, bounded by entries and by bytes, each with an end of its own: the least recently
 * used one makes room. No Lua, no clock: every call is told the time, in microseconds.
 *
 * Every operation takes constant time, amortised. An entry whose end has come is gone at the next
 * call, whichever that is: a timing wheel finds it, so that the counts are exact and nothing that
 * lives makes room for something dead.
 */
#ifndef SL_LRU_H
#define SL_LRU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    /** What an entry is taken to cost beside its key and value: its block, its place in the index.
     */
    SL_LRU_ENTRY_COST = 96,
    /** Six bits of a time for each level of the wheel. */
    SL_LRU_LEVELS = 11,
    SL_LRU_SLOTS = 64,
};

/** An entry that never ends. */
#define SL_LRU_NEVER INT64_MAX

/** As lua_Alloc: size 0 frees, and a failure returns NULL and leaves the old block. */
typedef void *(*sl_lru_alloc)(void *user, void *block, size_t old_size, size_t new_size);

typedef struct sl_lru_entry sl_lru_entry;
typedef struct sl_lru_cursor sl_lru_cursor;

typedef struct sl_lru {
    sl_lru_alloc alloc;
    void *user;
    /** Bounds, and what there is now. */
    size_t max_entries, max_bytes, entries, bytes;
    /** Counts of what has happened. */
    uint64_t hits, misses, stored, evicted, expired;
    /** By use. */
    sl_lru_entry *newest, *oldest;
    /** The index: chains by hash; `bucket_count` is 0 or a power of two. */
    sl_lru_entry **buckets;
    size_t bucket_count;
    /** For the hash: what comes in may be chosen by an enemy. */
    uint64_t seed[2];
    /** The time of the last call; the entries by their end, and which slots may have some. */
    int64_t now;
    sl_lru_entry *wheel[SL_LRU_LEVELS][SL_LRU_SLOTS];
    uint64_t filled[SL_LRU_LEVELS];
    sl_lru_cursor *cursors;
} sl_lru;

typedef enum sl_lru_status {
    SL_LRU_STORED = 0,
    /** Larger than the whole cache may be. */
    SL_LRU_TOO_LARGE = -1,
    SL_LRU_NO_MEMORY = -2,
} sl_lru_status;

/** Bytes that are not ours; valid until the next call. */
typedef struct sl_lru_bytes {
    const char *data;
    size_t size;
} sl_lru_bytes;

/** An empty one; takes no memory yet. Bounds are at least 1. */
void sl_lru_init(sl_lru *lru, size_t max_entries, size_t max_bytes, sl_lru_alloc alloc, void *user);
/** Frees everything and ends its cursors; idempotent. */
void sl_lru_fini(sl_lru *lru);
/** Forgets every entry; the counts stay. */
void sl_lru_clear(sl_lru *lru);

/** Lets go of what has ended by now. Where the clock has gone back it is another one: all that has
 * an end goes. */
void sl_lru_advance(sl_lru *lru, int64_t now);

/** Whether the key is there; counts as a use. */
bool sl_lru_get(sl_lru *lru, int64_t now, sl_lru_bytes key, sl_lru_bytes *value);
/**
 * Puts a copy of the value in the place of what was under the key, which is gone even where the
 * new one cannot be stored. `lifetime` in microseconds, or SL_LRU_NEVER.
 */
sl_lru_status sl_lru_set(sl_lru *lru, int64_t now, sl_lru_bytes key, sl_lru_bytes value,
                         int64_t lifetime);
/** Whether it was there. */
bool sl_lru_delete(sl_lru *lru, int64_t now, sl_lru_bytes key);

/** A walk from the most recently used entry to the least; entries may come and go meanwhile, and
 * what is used during the walk is not met again. */
struct sl_lru_cursor {
    /** NULL once it is stopped. */
    sl_lru *lru;
    sl_lru_entry *next;
    sl_lru_cursor *sibling;
};

void sl_lru_cursor_start(sl_lru_cursor *cursor, sl_lru *lru, int64_t now);
/** The next entry; false at the end. */
bool sl_lru_cursor_next(sl_lru_cursor *cursor, int64_t now, sl_lru_bytes *key, sl_lru_bytes *value);
/** Idempotent. */
void sl_lru_cursor_stop(sl_lru_cursor *cursor);

#endif
