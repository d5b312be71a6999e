/* SPDX-License-Identifier: MIT */
/* The entries of an LRU: by key in a hash table, by use in a list, by their end in a wheel. */
#include "lru.h"

#include <string.h>
#include <sys/random.h>

enum { LRU_FEWEST_BUCKETS = 16, LRU_LEVEL_BITS = 6 };

/* Longer lives do not end: some 73,000 years, so that no sum overflows. */
#define LRU_LONGEST ((int64_t)1 << 61)

struct sl_lru_entry {
    sl_lru_entry *newer, *older;
    /* the next one of the same bucket */
    sl_lru_entry *chain;
    /* the list of a slot of the wheel; `link` is what points here, NULL: never ends */
    sl_lru_entry *following, **link;
    int64_t end;
    size_t value_size;
    uint32_t hash, key_size;
    char bytes[]; /* the key, then the value */
};

static size_t lru_block_size(const sl_lru_entry *entry)
{
    return sizeof *entry + entry->key_size + entry->value_size;
}

static size_t lru_cost(size_t key_size, size_t value_size)
{
    return SL_LRU_ENTRY_COST + key_size + value_size;
}

/* ---- the hash: SipHash-1-3 (Aumasson, Bernstein), for keys that strangers choose ---- */

static inline uint64_t lru_rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void lru_sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = lru_rotate(v[1], 13) ^ v[0];
    v[3] = lru_rotate(v[3], 16) ^ v[2];
    v[0] = lru_rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = lru_rotate(v[1], 17) ^ v[2];
    v[3] = lru_rotate(v[3], 21) ^ v[0];
    v[2] = lru_rotate(v[2], 32);
}

static inline void lru_sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    lru_sip_round(v);
    v[0] ^= word;
}

static uint32_t lru_hash(const sl_lru *lru, sl_lru_bytes key)
{
    uint64_t v[4] = {
        lru->seed[0] ^ UINT64_C(0x736f6d6570736575), lru->seed[1] ^ UINT64_C(0x646f72616e646f6d),
        lru->seed[0] ^ UINT64_C(0x6c7967656e657261), lru->seed[1] ^ UINT64_C(0x7465646279746573)};
    const char *p = key.data;
    size_t left = key.size;
    uint64_t word;
    for (; left >= sizeof word; p += sizeof word, left -= sizeof word) {
        memcpy(&word, p, sizeof word);
        lru_sip_word(v, word);
    }
    word = 0;
    memcpy(&word, p, left);
    lru_sip_word(v, word | (uint64_t)key.size << 56);
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        lru_sip_round(v);
    word = v[0] ^ v[1] ^ v[2] ^ v[3];
    return (uint32_t)(word ^ word >> 32);
}

/* ---- the index ---- */

static sl_lru_entry **lru_bucket(const sl_lru *lru, uint32_t hash)
{
    return &lru->buckets[hash & (lru->bucket_count - 1)];
}

/* What points to the entry of this key, or to the end of its chain; NULL without any buckets. What
 * comes next is asked of the memory while the key is compared: it is what a large cache waits for.
 */
static sl_lru_entry **lru_find(const sl_lru *lru, sl_lru_bytes key, uint32_t hash)
{
    sl_lru_entry **place;
    if (lru->bucket_count == 0)
        return NULL;
    for (place = lru_bucket(lru, hash); *place != NULL; place = &(*place)->chain) {
        const sl_lru_entry *entry = *place;
        if (entry->hash != hash || entry->key_size != key.size)
            continue;
        __builtin_prefetch(entry->newer, 1);
        __builtin_prefetch(entry->older, 1);
        __builtin_prefetch(entry->bytes + key.size);
        if (memcmp(entry->bytes, key.data, key.size) == 0)
            break;
    }
    return place;
}

/* Twice as many buckets. Without memory the chains grow instead; false where there is no bucket. */
static bool lru_grow_index(sl_lru *lru)
{
    size_t old_count = lru->bucket_count;
    size_t count = old_count == 0 ? LRU_FEWEST_BUCKETS : old_count * 2;
    sl_lru_entry **old = lru->buckets, **made;
    made = lru->alloc(lru->user, NULL, 0, count * sizeof *made);
    if (made == NULL)
        return old_count != 0;
    memset(made, 0, count * sizeof *made);
    lru->buckets = made;
    lru->bucket_count = count;
    for (sl_lru_entry *entry = lru->newest; entry != NULL; entry = entry->older) {
        sl_lru_entry **place = lru_bucket(lru, entry->hash);
        entry->chain = *place;
        *place = entry;
    }
    if (old != NULL)
        lru->alloc(lru->user, old, old_count * sizeof *old, 0);
    return true;
}

static void lru_free_index(sl_lru *lru)
{
    if (lru->buckets != NULL)
        lru->alloc(lru->user, lru->buckets, lru->bucket_count * sizeof *lru->buckets, 0);
    lru->buckets = NULL;
    lru->bucket_count = 0;
}

/* ---- the order of use ---- */

static void lru_unlink(sl_lru *lru, sl_lru_entry *entry)
{
    for (sl_lru_cursor *cursor = lru->cursors; cursor != NULL; cursor = cursor->sibling) {
        if (cursor->next == entry)
            cursor->next = entry->older;
    }
    *(entry->newer != NULL ? &entry->newer->older : &lru->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &lru->oldest) = entry->newer;
}

static void lru_link(sl_lru *lru, sl_lru_entry *entry)
{
    entry->newer = NULL;
    entry->older = lru->newest;
    *(entry->older != NULL ? &entry->older->newer : &lru->oldest) = entry;
    lru->newest = entry;
}

/* ---- the wheel ---- */

/*
 * An entry is in the level of the highest six bits in which its end differs from now, in the slot
 * of its own six bits there. When now reaches that slot the entry moves to a lower level, at most
 * ten times, or has ended.
 */
static void lru_wheel_add(sl_lru *lru, sl_lru_entry *entry)
{
    int level = (63 - __builtin_clzll((uint64_t)(entry->end ^ lru->now))) / LRU_LEVEL_BITS;
    unsigned slot = (unsigned)(entry->end >> (level * LRU_LEVEL_BITS)) % SL_LRU_SLOTS;
    sl_lru_entry **first = &lru->wheel[level][slot];
    entry->following = *first;
    entry->link = first;
    if (entry->following != NULL)
        entry->following->link = &entry->following;
    *first = entry;
    lru->filled[level] |= UINT64_C(1) << slot;
}

static void lru_wheel_remove(sl_lru_entry *entry)
{
    if (entry->link == NULL)
        return;
    *entry->link = entry->following;
    if (entry->following != NULL)
        entry->following->link = entry->link;
    entry->link = NULL;
}

/* ---- entries ---- */

static void lru_free_entry(sl_lru *lru, sl_lru_entry *entry)
{
    lru->entries--;
    lru->bytes -= lru_cost(entry->key_size, entry->value_size);
    lru->alloc(lru->user, entry, lru_block_size(entry), 0);
}

/* `place` is what points to it in the index. */
static void lru_remove_at(sl_lru *lru, sl_lru_entry **place)
{
    sl_lru_entry *entry = *place;
    *place = entry->chain;
    lru_wheel_remove(entry);
    lru_unlink(lru, entry);
    lru_free_entry(lru, entry);
}

static void lru_remove(sl_lru *lru, sl_lru_entry *entry)
{
    sl_lru_entry **place = lru_bucket(lru, entry->hash);
    while (*place != entry)
        place = &(*place)->chain;
    lru_remove_at(lru, place);
}

static void lru_expire(sl_lru *lru, sl_lru_entry *entry)
{
    lru->expired++;
    lru_remove(lru, entry);
}

/* ---- time ---- */

/* Moves what the slots of `mask` hold to the front of `pending`. */
static void lru_wheel_take(sl_lru *lru, int level, uint64_t mask, sl_lru_entry **pending)
{
    uint64_t wanted = lru->filled[level] & mask;
    lru->filled[level] &= ~mask;
    for (; wanted != 0; wanted &= wanted - 1) {
        sl_lru_entry **first = &lru->wheel[level][__builtin_ctzll(wanted)], *last = *first;
        if (last == NULL)
            continue;
        while (last->following != NULL)
            last = last->following;
        last->following = *pending;
        if (*pending != NULL)
            (*pending)->link = &last->following;
        *pending = *first;
        (*pending)->link = pending;
        *first = NULL;
    }
}

/* The slots that time passes on its way from one number of a level to a later one. */
static uint64_t lru_passed(int64_t from, int64_t to)
{
    uint64_t until, after;
    if (from / SL_LRU_SLOTS != to / SL_LRU_SLOTS)
        return UINT64_MAX;
    until = UINT64_MAX >> (SL_LRU_SLOTS - 1 - to % SL_LRU_SLOTS);
    after = UINT64_MAX << (from % SL_LRU_SLOTS);
    return until & after & ~(UINT64_C(1) << (from % SL_LRU_SLOTS));
}

static void lru_wheel_settle(sl_lru *lru, sl_lru_entry *pending)
{
    while (pending != NULL) {
        sl_lru_entry *entry = pending;
        pending = entry->following;
        entry->link = NULL;
        if (entry->end <= lru->now)
            lru_expire(lru, entry);
        else
            lru_wheel_add(lru, entry);
    }
}

static void lru_restart(sl_lru *lru, int64_t now)
{
    sl_lru_entry *pending = NULL;
    for (int level = 0; level < SL_LRU_LEVELS; level++)
        lru_wheel_take(lru, level, UINT64_MAX, &pending);
    lru->now = INT64_MAX;
    lru_wheel_settle(lru, pending);
    lru->now = now;
}

void sl_lru_advance(sl_lru *lru, int64_t now)
{
    sl_lru_entry *pending = NULL;
    if (now <= lru->now) {
        if (now < lru->now)
            lru_restart(lru, now);
        return;
    }
    for (int level = 0; level < SL_LRU_LEVELS; level++) {
        int64_t from = lru->now >> (level * LRU_LEVEL_BITS);
        int64_t to = now >> (level * LRU_LEVEL_BITS);
        if (from == to)
            break;
        if (lru->filled[level] != 0)
            lru_wheel_take(lru, level, lru_passed(from, to), &pending);
    }
    lru->now = now;
    lru_wheel_settle(lru, pending);
}

/* ---- the whole ---- */

void sl_lru_init(sl_lru *lru, size_t max_entries, size_t max_bytes, sl_lru_alloc alloc, void *user)
{
    memset(lru, 0, sizeof *lru);
    lru->alloc = alloc;
    lru->user = user;
    lru->max_entries = max_entries;
    lru->max_bytes = max_bytes;
    /* early in the life of a machine there may be no random bytes yet: addresses are some, too */
    lru->seed[0] = (uint64_t)(uintptr_t)lru;
    if (getrandom(lru->seed, sizeof lru->seed, GRND_NONBLOCK) < 0)
        lru->seed[1] = (uint64_t)(uintptr_t)&alloc;
}

void sl_lru_clear(sl_lru *lru)
{
    for (sl_lru_cursor *cursor = lru->cursors; cursor != NULL; cursor = cursor->sibling)
        cursor->next = NULL;
    for (sl_lru_entry *entry = lru->newest, *older; entry != NULL; entry = older) {
        older = entry->older;
        lru_free_entry(lru, entry);
    }
    lru->newest = lru->oldest = NULL;
    memset(lru->wheel, 0, sizeof lru->wheel);
    memset(lru->filled, 0, sizeof lru->filled);
    lru_free_index(lru);
}

void sl_lru_fini(sl_lru *lru)
{
    sl_lru_clear(lru);
    while (lru->cursors != NULL)
        sl_lru_cursor_stop(lru->cursors);
}

bool sl_lru_get(sl_lru *lru, int64_t now, sl_lru_bytes key, sl_lru_bytes *value)
{
    uint32_t hash = lru_hash(lru, key);
    sl_lru_entry **place, *entry;
    if (lru->bucket_count != 0)
        __builtin_prefetch(lru_bucket(lru, hash));
    sl_lru_advance(lru, now);
    place = lru_find(lru, key, hash);
    if (place == NULL || *place == NULL) {
        lru->misses++;
        return false;
    }
    entry = *place;
    lru->hits++;
    if (entry != lru->newest) {
        lru_unlink(lru, entry);
        lru_link(lru, entry);
    }
    *value = (sl_lru_bytes){entry->bytes + entry->key_size, entry->value_size};
    return true;
}

static void lru_evict(sl_lru *lru)
{
    lru->evicted++;
    lru_remove(lru, lru->oldest);
}

static bool lru_is_too_large(const sl_lru *lru, sl_lru_bytes key, sl_lru_bytes value)
{
    return key.size > UINT32_MAX || lru->max_bytes < SL_LRU_ENTRY_COST ||
           key.size > lru->max_bytes - SL_LRU_ENTRY_COST ||
           value.size > lru->max_bytes - SL_LRU_ENTRY_COST - key.size;
}

/* A block for an entry; where there is no memory, others make room for it. */
static sl_lru_entry *lru_make_entry(sl_lru *lru, sl_lru_bytes key, sl_lru_bytes value)
{
    size_t cost = lru_cost(key.size, value.size);
    sl_lru_entry *entry;
    while (lru->entries >= lru->max_entries || lru->bytes > lru->max_bytes - cost)
        lru_evict(lru);
    for (;;) {
        entry = lru->alloc(lru->user, NULL, 0, sizeof *entry + key.size + value.size);
        if (entry != NULL || lru->entries == 0)
            break;
        lru_evict(lru);
    }
    if (entry == NULL)
        return NULL;
    *entry = (sl_lru_entry){.key_size = (uint32_t)key.size, .value_size = value.size};
    memcpy(entry->bytes, key.data, key.size);
    memcpy(entry->bytes + key.size, value.data, value.size);
    return entry;
}

static void lru_insert(sl_lru *lru, sl_lru_entry *entry, uint32_t hash)
{
    sl_lru_entry **place = lru_bucket(lru, hash);
    entry->hash = hash;
    entry->chain = *place;
    *place = entry;
    lru_link(lru, entry);
    lru->entries++;
    lru->bytes += lru_cost(entry->key_size, entry->value_size);
    lru->stored++;
}

sl_lru_status sl_lru_set(sl_lru *lru, int64_t now, sl_lru_bytes key, sl_lru_bytes value,
                         int64_t lifetime)
{
    uint32_t hash = lru_hash(lru, key);
    sl_lru_entry **place, *entry;
    sl_lru_advance(lru, now);
    place = lru_find(lru, key, hash);
    if (place != NULL && *place != NULL)
        lru_remove_at(lru, place);
    if (lru_is_too_large(lru, key, value))
        return SL_LRU_TOO_LARGE;
    entry = lru_make_entry(lru, key, value);
    if (entry == NULL)
        return SL_LRU_NO_MEMORY;
    if (lru->entries >= lru->bucket_count && !lru_grow_index(lru)) {
        lru->alloc(lru->user, entry, lru_block_size(entry), 0);
        return SL_LRU_NO_MEMORY;
    }
    lru_insert(lru, entry, hash);
    if (lifetime >= LRU_LONGEST)
        return SL_LRU_STORED;
    entry->end = now + lifetime;
    if (entry->end > now)
        lru_wheel_add(lru, entry);
    else
        lru_expire(lru, entry);
    return SL_LRU_STORED;
}

bool sl_lru_delete(sl_lru *lru, int64_t now, sl_lru_bytes key)
{
    sl_lru_entry **place;
    sl_lru_advance(lru, now);
    place = lru_find(lru, key, lru_hash(lru, key));
    if (place == NULL || *place == NULL)
        return false;
    lru_remove_at(lru, place);
    return true;
}

/* ---- walks ---- */

void sl_lru_cursor_start(sl_lru_cursor *cursor, sl_lru *lru, int64_t now)
{
    sl_lru_advance(lru, now);
    *cursor = (sl_lru_cursor){lru, lru->newest, lru->cursors};
    lru->cursors = cursor;
}

bool sl_lru_cursor_next(sl_lru_cursor *cursor, int64_t now, sl_lru_bytes *key, sl_lru_bytes *value)
{
    const sl_lru_entry *entry;
    if (cursor->lru == NULL)
        return false;
    sl_lru_advance(cursor->lru, now);
    entry = cursor->next;
    if (entry == NULL)
        return false;
    cursor->next = entry->older;
    *key = (sl_lru_bytes){entry->bytes, entry->key_size};
    *value = (sl_lru_bytes){entry->bytes + entry->key_size, entry->value_size};
    return true;
}

void sl_lru_cursor_stop(sl_lru_cursor *cursor)
{
    sl_lru_cursor **place;
    if (cursor->lru == NULL)
        return;
    for (place = &cursor->lru->cursors; *place != cursor; place = &(*place)->sibling)
        continue;
    *place = cursor->sibling;
    cursor->lru = NULL;
}
