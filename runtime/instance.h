/* SPDX-License-Identifier: MIT */
/* The handle behind sluice.h: what sluice.c, which makes and pumps it, and chunk.c share. */
#ifndef SL_INSTANCE_H
#define SL_INSTANCE_H

#include "core/internal.h"
#include "heap.h"
#include "sluice.h"

enum {
    /* Slots of the Lua stack that a function of sluice.h takes at most. */
    SL_STACK_NEEDED = 8,
};

/** A chunk that sluice_spawn started; of chunk.c. */
typedef struct sl_chunk sl_chunk;

/** A host's loop as the core sees it. */
typedef struct host_backend {
    sl_backend base;
    sluice_loop loop;
} host_backend;

struct sluice {
    sl_core *core;
    /** The main thread. */
    lua_State *L;
    /** Those whose end was not told yet, and those whose text is kept until the next pump. */
    sl_chunk *chunks, *told;
    host_backend backend;
    sluice_options options;
    /** Of our own state. */
    sl_heap heap;
    bool owns_state;
    /** A call runs that may call back. */
    bool busy;
    /** sluice_delete() was called from inside it. */
    bool deleted;
};

/** Ends a call that may have called back. The handle may be gone afterwards. */
void sl_instance_leave(sluice *s);
/** Pops the error of a call of Lua that failed, and tells the host. */
void sl_instance_tell_error(sluice *s);
/** A loop of the host's learns when the next pump is due. */
void sl_instance_announce_due(sluice *s);

/** Tells of the chunks that have ended, or of all of them. */
void sl_chunks_tell(sluice *s, bool all);
/** Frees the texts that the host was told before. */
void sl_chunks_forget_told(sluice *s);

#endif
