/* SPDX-License-Identifier: MIT */
/* Clocks: the real one and simulated ones, each with its timers in a pairing heap. */
#include "internal.h"

#include <time.h>

int64_t sl_clock_read(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

double sl_clock_wall(sl_clock *clock)
{
    if (clock->simulated)
        return clock->epoch + (double)clock->now / 1e6;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int64_t sl_now(sl_core *core)
{
    return core->real.now;
}

int64_t sl_now_update(sl_core *core)
{
    core->real.now = sl_clock_read();
    return core->real.now;
}

/* ---- the pairing heap: `previous` is the parent of a first child, else the left sibling ---- */

/** Equal timers fire in the order in which they were started. */
static bool fires_before(const sl_timer *a, const sl_timer *b)
{
    return a->due != b->due ? a->due < b->due : a->serial < b->serial;
}

static sl_timer *heap_meld(sl_timer *a, sl_timer *b)
{
    if (!a)
        return b;
    if (!b)
        return a;
    if (fires_before(b, a)) {
        sl_timer *swap = a;
        a = b;
        b = swap;
    }
    b->next = a->child;
    if (b->next)
        b->next->previous = b;
    b->previous = a;
    a->child = b;
    a->next = NULL;
    a->previous = NULL;
    return a;
}

static sl_timer *heap_merge_pairs(sl_timer *first)
{
    sl_timer *pairs = NULL;
    while (first) {
        sl_timer *a = first, *b = first->next;
        first = b ? b->next : NULL;
        a->next = a->previous = NULL;
        if (b)
            b->next = b->previous = NULL;
        a = heap_meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    sl_timer *root = NULL;
    while (pairs) {
        sl_timer *next = pairs->next;
        pairs->next = NULL;
        root = heap_meld(pairs, root);
        pairs = next;
    }
    return root;
}

void sl_timer_stop(sl_timer *timer)
{
    sl_clock *clock = timer->clock;
    if (!clock)
        return;
    if (clock->heap == timer) {
        clock->heap = heap_merge_pairs(timer->child);
    } else {
        if (timer->previous->child == timer)
            timer->previous->child = timer->next;
        else
            timer->previous->next = timer->next;
        if (timer->next)
            timer->next->previous = timer->previous;
        clock->heap = heap_meld(clock->heap, heap_merge_pairs(timer->child));
    }
    timer->child = timer->next = timer->previous = NULL;
    timer->clock = NULL;
}

void sl_clock_timer_start(sl_clock *clock, sl_timer *timer, int64_t due)
{
    sl_timer_stop(timer);
    timer->due = due;
    timer->serial = clock->core->serial++;
    timer->clock = clock;
    clock->heap = heap_meld(clock->heap, timer);
}

void sl_timer_start(sl_core *core, sl_timer *timer, int64_t due)
{
    sl_clock_timer_start(&core->real, timer, due);
}

size_t sl_clock_fire(sl_clock *clock)
{
    size_t fired = 0;
    while (clock->heap && clock->heap->due <= clock->now) {
        sl_timer *timer = clock->heap;
        sl_timer_stop(timer);
        timer->on_due(timer);
        fired++;
    }
    return fired;
}

size_t sl_clock_advance(sl_core *core)
{
    size_t fired = 0;
    for (sl_clock *clock = core->simulated; clock; clock = clock->next) {
        if (!clock->heap)
            continue;
        if (clock->heap->due > clock->now)
            clock->now = clock->heap->due;
        fired += sl_clock_fire(clock);
    }
    return fired;
}

/* ---- simulated clocks live as long as a task uses them ---- */

sl_clock *sl_clock_new(sl_core *core, double epoch, uint64_t seed)
{
    sl_clock *clock = sl_alloc_array(core, 1, sizeof *clock);
    if (!clock)
        return NULL;
    clock->core = core;
    clock->epoch = epoch;
    clock->seed = seed;
    clock->simulated = true;
    clock->users = 1;
    clock->next = core->simulated;
    core->simulated = clock;
    return clock;
}

void sl_clock_release(sl_clock *clock)
{
    if (!clock->simulated || --clock->users > 0)
        return;
    sl_clock **link = &clock->core->simulated;
    while (*link != clock)
        link = &(*link)->next;
    *link = clock->next;
    sl_free(clock->core, clock);
}

void sl_clocks_free(sl_core *core)
{
    while (core->simulated) {
        sl_clock *clock = core->simulated;
        core->simulated = clock->next;
        sl_free(core, clock);
    }
}
