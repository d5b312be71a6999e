/* SPDX-License-Identifier: MIT */
/* The input is a program for an LRU, whose allocations fail on request; a plain model says what
 * must come of it. */
#include "../../runtime/modules/lru/lru.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 16, LARGEST = 600 };

#define HOLDS(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

/** What is in it, the most recently used first. */
typedef struct model {
    struct {
        uint8_t key, mark;
        size_t size;
        int64_t end;
    } list[KEYS];
    size_t count, bytes, taken;
    int failures;
} model;

static void *counted(void *user, void *block, size_t old_size, size_t new_size)
{
    model *m = user;
    if (new_size == 0) {
        m->taken -= old_size;
        free(block);
        return NULL;
    }
    if (m->failures > 0) {
        m->failures--;
        return NULL;
    }
    m->taken += new_size - (block ? old_size : 0);
    return realloc(block, new_size);
}

static size_t cost_of(size_t size)
{
    return SL_LRU_ENTRY_COST + 1 + size;
}

static void model_remove(model *m, size_t at)
{
    m->bytes -= cost_of(m->list[at].size);
    m->count--;
    memmove(&m->list[at], &m->list[at + 1], (m->count - at) * sizeof m->list[0]);
}

static void model_advance(model *m, int64_t now)
{
    for (size_t at = m->count; at > 0; at--) {
        if (m->list[at - 1].end <= now)
            model_remove(m, at - 1);
    }
}

static size_t model_find(const model *m, uint8_t key)
{
    size_t at = 0;
    while (at < m->count && m->list[at].key != key)
        at++;
    return at;
}

/** The two have the same entries in the same order. */
static void compare(sl_lru *lru, const model *m, int64_t now)
{
    sl_lru_cursor cursor;
    sl_lru_bytes key, value;
    size_t at = 0;
    sl_lru_cursor_start(&cursor, lru, now);
    for (; sl_lru_cursor_next(&cursor, now, &key, &value); at++) {
        HOLDS(at < m->count && key.size == 1 && (uint8_t)key.data[0] == m->list[at].key);
        HOLDS(value.size == m->list[at].size);
        for (size_t i = 0; i < value.size; i++)
            HOLDS((uint8_t)value.data[i] == m->list[at].mark);
    }
    sl_lru_cursor_stop(&cursor);
    HOLDS(at == m->count && lru->entries == m->count && lru->bytes == m->bytes);
    HOLDS(lru->entries <= lru->max_entries && lru->bytes <= lru->max_bytes);
}

static void set(sl_lru *lru, model *m, int64_t now, uint8_t letter, size_t size, int64_t life)
{
    char bytes[LARGEST];
    size_t at = model_find(m, letter), evicted = (size_t)lru->evicted;
    memset(bytes, (uint8_t)(size + letter), size);
    sl_lru_status status =
        sl_lru_set(lru, now, (sl_lru_bytes){(char *)&letter, 1}, (sl_lru_bytes){bytes, size}, life);
    if (at < m->count)
        model_remove(m, at);
    if (status == SL_LRU_TOO_LARGE) {
        HOLDS(cost_of(size) > lru->max_bytes);
        return;
    }
    while (m->count >= lru->max_entries || m->bytes + cost_of(size) > lru->max_bytes) {
        model_remove(m, m->count - 1);
        evicted++;
    }
    /* without memory more of the oldest had to go */
    for (; evicted < lru->evicted; evicted++)
        model_remove(m, m->count - 1);
    if (status == SL_LRU_NO_MEMORY)
        return;
    memmove(&m->list[1], &m->list[0], m->count * sizeof m->list[0]);
    m->list[0].key = letter;
    m->list[0].mark = (uint8_t)(size + letter);
    m->list[0].size = size;
    m->list[0].end = life == SL_LRU_NEVER ? SL_LRU_NEVER : now + life;
    m->count++;
    m->bytes += cost_of(size);
    model_advance(m, now);
}

static void get(sl_lru *lru, model *m, int64_t now, uint8_t letter)
{
    sl_lru_bytes value;
    size_t at = model_find(m, letter);
    bool found = sl_lru_get(lru, now, (sl_lru_bytes){(char *)&letter, 1}, &value);
    HOLDS(found == (at < m->count));
    if (!found)
        return;
    HOLDS(value.size == m->list[at].size);
    model moved = *m;
    memmove(&m->list[1], &m->list[0], at * sizeof m->list[0]);
    m->list[0] = moved.list[at];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sl_lru lru;
    model m = {.count = 0};
    int64_t now = 1000;
    if (size < 2)
        return 0;
    sl_lru_init(&lru, 1 + data[0] % KEYS, 1 + (size_t)data[1] * 16, counted, &m);
    for (size_t i = 2; i + 3 < size; i += 4) {
        uint8_t letter = data[i + 1] % KEYS;
        int64_t life = (int64_t)data[i + 2] << data[i + 3] % 52;
        model_advance(&m, now);
        switch (data[i] % 8) {
        case 0:
            now += life;
            model_advance(&m, now);
            break;
        case 1:
            m.failures = data[i + 1] % 4;
            break;
        case 2:
            sl_lru_clear(&lru);
            m.count = m.bytes = 0;
            break;
        case 3:
            HOLDS(sl_lru_delete(&lru, now, (sl_lru_bytes){(char *)&letter, 1}) ==
                  (model_find(&m, letter) < m.count));
            if (model_find(&m, letter) < m.count)
                model_remove(&m, model_find(&m, letter));
            break;
        case 4:
        case 5:
            get(&lru, &m, now, letter);
            break;
        default:
            set(&lru, &m, now, letter, data[i + 1] * 2u, data[i + 3] == 255 ? SL_LRU_NEVER : life);
        }
        compare(&lru, &m, now);
    }
    sl_lru_fini(&lru);
    HOLDS(m.taken == 0);
    return 0;
}
