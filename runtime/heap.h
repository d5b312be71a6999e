/* SPDX-License-Identifier: MIT */
/* The memory of a Lua state of ours: what it takes is counted and limited, small blocks are pooled.
 */
#ifndef SL_HEAP_H
#define SL_HEAP_H

#include <stdbool.h>
#include <stddef.h>

enum {
    /** Bytes that the sizes of small blocks differ by up to HEAP_FINE, and from there to
     * HEAP_SMALL, their largest: a question or an answer of a chat. */
    HEAP_STEP = 16,
    HEAP_FINE = 512,
    HEAP_LARGE_STEP = 128,
    HEAP_SMALL = 2048,
    HEAP_SIZES = HEAP_FINE / HEAP_STEP + (HEAP_SMALL - HEAP_FINE) / HEAP_LARGE_STEP,
};

typedef struct heap_slab heap_slab;
typedef struct heap_stray heap_stray;

typedef struct sl_heap {
    /** The host's, as of sluice.h. */
    void *(*allocator)(void *user, void *block, size_t size);
    void *allocator_user;
    /** Bytes in use, as Lua counts them; what they may be at the most, 0: no limit. */
    size_t used, limit;
    /** Small blocks come from slabs. */
    bool pooled;
    /** By size: slabs with room. */
    heap_slab *open[HEAP_SIZES];
    /** Blocks that are too large for what they hold: see heap_keep. */
    heap_stray *strays;
} sl_heap;

/** A lua_Alloc; `user` is an sl_heap, set up by its owner. Nothing is left once all is freed but
 * one slab of each size, which sl_heap_fini frees. */
void *sl_heap_allocate(void *user, void *block, size_t old_size, size_t size);
void sl_heap_fini(sl_heap *heap);

#endif
