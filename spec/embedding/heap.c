/* SPDX-License-Identifier: MIT */
/* The memory of a Lua state, called as Lua calls it; the allocators below it fail on demand. */
#include <stdint.h>
#include <stdlib.h>

static long heap_live;
static int heap_fails;

static int counted_memalign(void **block, size_t alignment, size_t size)
{
    if (heap_fails || posix_memalign(block, alignment, size) != 0)
        return 12;
    heap_live++;
    return 0;
}

static void counted_free(void *block)
{
    heap_live -= block != NULL;
    free(block);
}

#define posix_memalign counted_memalign
#define free counted_free
#include "../../runtime/heap.c"
#undef posix_memalign
#undef free

#include "check.h"

static void *counted_allocator(void *user, void *block, size_t size)
{
    (void)user;
    if (size == 0) {
        counted_free(block);
        return NULL;
    }
    if (heap_fails)
        return NULL;
    heap_live += block == NULL;
    return realloc(block, size);
}

static sl_heap new_heap(bool pooled)
{
    heap_live = heap_fails = 0;
    return (sl_heap){.allocator = counted_allocator, .pooled = pooled};
}

enum { PLACES = 3000, LARGEST = 4000 };

/** A block and what it should hold: `size` times the byte `mark`. */
typedef struct filled {
    unsigned char *block, mark;
    size_t size;
} filled;

static void check_and_resize(sl_heap *heap, filled *f, size_t size, unsigned char mark)
{
    unsigned char *block = sl_heap_allocate(heap, f->block, f->block ? f->size : 5, size);
    if (size > 0 && !block) {
        CHECK(heap_fails && size > f->size);
        return;
    }
    for (size_t i = 0; i < (size < f->size ? size : f->size); i++)
        CHECK(block[i] == f->mark);
    CHECK((uintptr_t)block % 16 == 0);
    if (size > 0)
        memset(block, mark, size);
    *f = (filled){block, mark, size};
}

/** Blocks of all sizes come, change and go; `failing`: there is often no memory. */
static void churn(sl_heap *heap, bool failing)
{
    static filled places[PLACES];
    memset(places, 0, sizeof places);
    uint32_t state = 1;
    for (int step = 0; step < 400000; step++) {
        state = state * 1664525u + 1013904223u;
        filled *f = &places[(state >> 8) % PLACES];
        heap_fails = failing && (state >> 3) % 3 != 0;
        size_t size = (state >> 20) % 3 == 0 ? 0 : (state >> 12) % LARGEST;
        check_and_resize(heap, f, size, (unsigned char)step);
    }
    size_t used = 0;
    for (int i = 0; i < PLACES; i++)
        used += places[i].size;
    CHECK(heap->used == used);
    heap_fails = 0;
    for (int i = 0; i < PLACES; i++)
        check_and_resize(heap, &places[i], 0, 0);
    CHECK(heap->used == 0 && !heap->strays);
}

static void contents(void)
{
    for (int pooled = 0; pooled < 2; pooled++) {
        sl_heap heap = new_heap(pooled);
        churn(&heap, false);
        sl_heap_fini(&heap);
        CHECK(heap_live == 0);
    }
}

static void without_memory(void)
{
    sl_heap heap = new_heap(true);
    churn(&heap, true);
    sl_heap_fini(&heap);
    CHECK(heap_live == 0);
}

static void gives_back(void)
{
    sl_heap heap = new_heap(true);
    enum { COUNT = 100000 };
    void **blocks = malloc(COUNT * sizeof *blocks);
    CHECK(blocks);
    for (int i = 0; i < COUNT; i++)
        blocks[i] = sl_heap_allocate(&heap, NULL, 0, 40);
    CHECK(heap_live > COUNT * 40 / (16 * 1024));
    for (int i = 0; i < COUNT; i++)
        sl_heap_allocate(&heap, blocks[i], 40, 0);
    CHECK(heap_live == 1);
    free(blocks);
    sl_heap_fini(&heap);
    CHECK(heap_live == 0);
}

static void limit(void)
{
    sl_heap heap = new_heap(true);
    heap.limit = 100;
    void *block = sl_heap_allocate(&heap, NULL, 0, 90);
    CHECK(block && !sl_heap_allocate(&heap, NULL, 0, 11));
    CHECK(!sl_heap_allocate(&heap, block, 90, 101));
    block = sl_heap_allocate(&heap, block, 90, 100);
    CHECK(block && heap.used == 100);
    block = sl_heap_allocate(&heap, block, 100, 1);
    CHECK(block && heap.used == 1);
    sl_heap_allocate(&heap, block, 1, 0);
    CHECK(heap.used == 0);
    sl_heap_fini(&heap);
}

static const test_case cases[] = {
    {"contents", contents},
    {"without_memory", without_memory},
    {"gives_back", gives_back},
    {"limit", limit},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_case(cases, argc, argv);
}
