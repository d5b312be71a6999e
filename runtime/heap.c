/* SPDX-License-Identifier: MIT */
/*
 * A Lua state makes some forty small blocks for an HTTP request: from slabs they cost a third of
 * what malloc takes, and eight to sixteen bytes less each. A slab holds blocks of one size and goes
 * back when the last of them is free, but for one of each size. Where a host has an allocator of
 * its own, each block is its to give.
 */
#include "heap.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    /** A slab begins at a multiple of it, so that a block tells where its slab is. */
    HEAP_ALIGNMENT = 16 * 1024,
    /** What malloc puts before a block: with it slabs stand side by side. */
    HEAP_BEFORE = 16,
    HEAP_SLAB = HEAP_ALIGNMENT - HEAP_BEFORE,
};

struct heap_slab {
    heap_slab *next, *previous;
    /** Blocks that were given back, linked through their first word. */
    void *free;
    /** Where no block has been yet. */
    char *fresh;
    /** Bytes of a block; blocks in use; and at the most. */
    uint32_t size, used, most;
    uint32_t index;
};

/** In a block of the allocator's that Lua has shrunk to a small one when there was no memory. */
struct heap_stray {
    heap_stray *next;
    void *block;
};

/* ---- slabs ---- */

static size_t heap_index(size_t size)
{
    if (size <= HEAP_FINE)
        return (size - 1) / HEAP_STEP;
    return HEAP_FINE / HEAP_STEP + (size - 1 - HEAP_FINE) / HEAP_LARGE_STEP;
}

/** Of the blocks of a slab. */
static size_t heap_size_of(size_t index)
{
    enum { FINE = HEAP_FINE / HEAP_STEP };
    if (index < FINE)
        return (index + 1) * HEAP_STEP;
    return HEAP_FINE + (index - FINE + 1) * HEAP_LARGE_STEP;
}

static void heap_link(sl_heap *heap, heap_slab *slab)
{
    heap_slab **first = &heap->open[slab->index];
    slab->previous = NULL;
    slab->next = *first;
    if (slab->next)
        slab->next->previous = slab;
    *first = slab;
}

static void heap_unlink(sl_heap *heap, heap_slab *slab)
{
    if (slab->previous)
        slab->previous->next = slab->next;
    else
        heap->open[slab->index] = slab->next;
    if (slab->next)
        slab->next->previous = slab->previous;
}

static heap_slab *heap_open_slab(sl_heap *heap, size_t index)
{
    void *memory;
    if (posix_memalign(&memory, HEAP_ALIGNMENT, HEAP_SLAB) != 0)
        return NULL;
    heap_slab *slab = memory;
    *slab = (heap_slab){.size = (uint32_t)heap_size_of(index), .index = (uint32_t)index};
    slab->fresh = (char *)memory + sizeof *slab;
    slab->most = (uint32_t)(HEAP_SLAB - sizeof *slab) / slab->size;
    heap_link(heap, slab);
    return slab;
}

static void *heap_take(sl_heap *heap, size_t size)
{
    size_t index = heap_index(size);
    heap_slab *slab = heap->open[index];
    if (!slab && !(slab = heap_open_slab(heap, index)))
        return NULL;
    void *block = slab->free;
    if (block) {
        memcpy(&slab->free, block, sizeof slab->free);
    } else {
        block = slab->fresh;
        slab->fresh += slab->size;
    }
    if (++slab->used == slab->most)
        heap_unlink(heap, slab);
    return block;
}

static void heap_give(sl_heap *heap, void *block)
{
    heap_slab *slab = (heap_slab *)(void *)((char *)block - (uintptr_t)block % HEAP_ALIGNMENT);
    memcpy(block, &slab->free, sizeof slab->free);
    slab->free = block;
    if (slab->used-- == slab->most) {
        heap_link(heap, slab);
    } else if (slab->used == 0 && (slab->next || slab->previous)) {
        heap_unlink(heap, slab);
        free(slab);
    }
}

/* ---- blocks ---- */

static bool heap_is_small(const sl_heap *heap, size_t size)
{
    return heap->pooled && size <= HEAP_SMALL;
}

/** Of a block for Lua that is not small: with room for a stray behind what a small one may hold. */
static void *heap_resize(sl_heap *heap, void *block, size_t size)
{
    enum { LEAST = HEAP_SMALL + sizeof(heap_stray) };
    if (heap->pooled && size < LEAST)
        size = LEAST;
    return heap->allocator(heap->allocator_user, block, size);
}

/** Lua counts on it that shrinking succeeds: where there is no smaller block it keeps this one. */
static void *heap_keep(sl_heap *heap, void *block, size_t old_size)
{
    if (heap_is_small(heap, old_size))
        return block;
    heap_stray *stray = (heap_stray *)(void *)((char *)block + HEAP_SMALL);
    stray->block = block;
    stray->next = heap->strays;
    heap->strays = stray;
    return block;
}

static bool heap_free_stray(sl_heap *heap, const void *block)
{
    for (heap_stray **link = &heap->strays; *link; link = &(*link)->next) {
        heap_stray *stray = *link;
        if (stray->block != block)
            continue;
        *link = stray->next;
        heap->allocator(heap->allocator_user, stray->block, 0);
        return true;
    }
    return false;
}

static void heap_free(sl_heap *heap, void *block, size_t size)
{
    if (!heap_is_small(heap, size))
        heap->allocator(heap->allocator_user, block, 0);
    else if (!heap->strays || !heap_free_stray(heap, block))
        heap_give(heap, block);
}

static void *heap_make(sl_heap *heap, size_t size)
{
    return heap_is_small(heap, size) ? heap_take(heap, size) : heap_resize(heap, NULL, size);
}

static void *heap_change(sl_heap *heap, void *block, size_t old_size, size_t size)
{
    bool was_small = heap_is_small(heap, old_size), is_small = heap_is_small(heap, size);
    if (!was_small && !is_small) {
        void *moved = heap_resize(heap, block, size);
        return moved || size > old_size ? moved : block;
    }
    if (was_small && is_small && heap_index(old_size) == heap_index(size))
        return block;
    void *other = heap_make(heap, size);
    if (!other)
        return size <= old_size ? heap_keep(heap, block, old_size) : NULL;
    memcpy(other, block, size < old_size ? size : old_size);
    heap_free(heap, block, old_size);
    return other;
}

void *sl_heap_allocate(void *user, void *block, size_t old_size, size_t size)
{
    sl_heap *heap = user;
    if (size == 0) {
        if (block) {
            heap_free(heap, block, old_size);
            heap->used -= old_size;
        }
        return NULL;
    }
    size_t before = block ? old_size : 0;
    if (heap->limit && size > before && heap->used + (size - before) > heap->limit)
        return NULL;
    void *result = block ? heap_change(heap, block, before, size) : heap_make(heap, size);
    if (result)
        heap->used = heap->used - before + size;
    return result;
}

void sl_heap_fini(sl_heap *heap)
{
    for (size_t i = 0; i < sizeof heap->open / sizeof heap->open[0]; i++) {
        free(heap->open[i]);
        heap->open[i] = NULL;
    }
}
