/* SPDX-License-Identifier: MIT */
/* The handle behind sluice.h: what sluice.c, which makes and pumps it, and chunk.c share. */
#ifndef SL_INSTANCE_H
#define SL_INSTANCE_H

#include "core/internal.h"
#include "heap.h"
#include "sluice.h"

#include <pthread.h>

enum {
    /* Slots of the Lua stack that a function of sluice.h takes at most. */
    SL_STACK_NEEDED = 8,
};

/** A chunk that sluice_spawn started; of chunk.c. */
typedef struct sl_chunk sl_chunk;
/** A function that sluice_register made, and the place of an open call; of call.c. */
typedef struct sl_function sl_function;
typedef struct sl_place sl_place;
/** A descriptor that sluice_watch watches; of watch.c. */
typedef struct sl_watch sl_watch;

/** The open calls of host functions, by their numbers. */
typedef struct sl_calls {
    sl_place *places;
    /** How many there are, and the first that is free, from 1. */
    uint32_t size, free;
} sl_calls;

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
    sl_function *functions;
    sl_calls calls;
    sl_watch *watches;
    host_backend backend;
    sluice_options options;
    /** Of our own state. */
    sl_heap heap;
    pthread_t thread;
    bool owns_state;
    /** A call runs that may call back. */
    bool busy;
    /** sluice_delete() was called from inside it. */
    bool deleted;
};

/** Whether this is the thread of the handle. */
bool sl_instance_is_here(const sluice *s);
/** Begins a call that may call back, and may call Lua. SLUICE_OK, or why it may not. */
int sl_instance_enter(sluice *s);
/** Ends a call that may have called back. The handle may be gone afterwards. */
void sl_instance_leave(sluice *s);
/** Pops the error of a call of Lua that failed, and tells the host. */
void sl_instance_tell_error(sluice *s);
/** A loop of the host's learns when the next pump is due. */
void sl_instance_announce_due(sluice *s);

/** For texts that go between Lua and the host, as sl_json_alloc: none longer than the memory limit.
 */
void *sl_instance_allocate(void *user, void *block, size_t old_size, size_t size);
/** Tells of the chunks that have ended, or of all of them. */
void sl_chunks_tell(sluice *s, bool all);
/** Frees the texts that the host was told before. */
void sl_chunks_forget_told(sluice *s);

/** Cancels the open calls; the functions of the host's can be called no more. */
void sl_calls_close(sluice *s);
/** Takes the functions out of the state. May raise. */
void sl_functions_remove(lua_State *L, sluice *s);
LUAMOD_API int luaopen_sluice_core_host(lua_State *L);

void sl_watches_close(sluice *s);

#endif
