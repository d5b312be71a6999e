/* SPDX-License-Identifier: MIT */
/*
 * The writer: one thread for each instance, which writes what the loop must not wait for.
 *
 * What is to be written is a record: bytes for a sink. Pushing one copies it into a bounded queue
 * and never blocks; what does not fit is dropped, and counted by its sink. The thread takes the
 * records in their order and gives them to their sinks. It never enters Lua, has all signals
 * blocked, and starts when a record is first queued. Where the host wants no thread, each record is
 * written in the push itself.
 *
 * Memory of the writer and of sinks is malloc's, not the host's allocator's: it is used on the
 * thread, and outlives the instance where a disk hangs.
 *
 * An engine without lua.h, shared by modules.
 */
#ifndef SL_WRITER_H
#define SL_WRITER_H

#include "core/core.h"

#include <stdatomic.h>

typedef struct sl_writer sl_writer;
typedef struct sl_sink sl_sink;

typedef struct sl_record {
    const char *bytes;
    size_t length;
    /** What it is: the sink's own numbers. */
    unsigned tag;
} sl_record;

/** What a kind of sink does. Only `write` and `close` must be there. */
typedef struct sl_sink_type {
    /** On the thread: writes one record or more, which are valid until it returns. What waits for a
     * descriptor waits for sl_sink_stop_fd() beside it, and gives up when that is readable; what
     * fails is counted with sl_sink_failed(). */
    void (*write)(sl_sink *sink, const sl_record *records, size_t count);
    /** On the thread, after the last record: gives back everything outside, and frees the sink. */
    void (*close)(sl_sink *sink);
    /** On the thread, before the first record that comes through after `count` were dropped. */
    void (*tell_dropped)(sl_sink *sink, uint64_t count);
    /** On the core's thread, with none of its records queued: writes as much of a record as it can
     * without waiting; the rest, of the bytes that it returns less, is queued. */
    size_t (*write_now)(sl_sink *sink, const sl_record *record);
    /** On the core's thread, some time after sl_sink_notify(). It must not call Lua. */
    void (*on_notice)(sl_sink *sink, sl_core *core);
    /** Has what it writes to opened anew: on the core's thread, true where it has a place that can
     * be; it pushes a record to that end. */
    bool (*reopen)(sl_sink *sink);
} sl_sink_type;

/** Embedded, first, in what a module writes to; malloc'ed by the module. */
struct sl_sink {
    const sl_sink_type *type;
    /* the rest is the writer's */
    sl_writer *writer;
    /** The owner's pointer to it: NULL as soon as the sink is not the owner's any more. */
    sl_sink **owner;
    sl_sink *next, **link;
    /** Records that are queued, or being written. */
    size_t queued;
    /** Records that did not fit, and those of them that tell_dropped was not told of. */
    uint64_t dropped, untold;
    _Atomic uint64_t failed;
    atomic_bool has_notice;
    bool is_closing;
};

/** A wait for everything that was pushed before; embedded in its owner, zeroed. */
typedef struct sl_flush sl_flush;
struct sl_flush {
    /** Called once, from the loop. */
    void (*on_done)(sl_flush *flush);
    /* the rest is the writer's */
    uint64_t target;
    sl_flush *next, **link;
};

/**
 * The writer of this instance, made at the first call; NULL without memory.
 *
 * It goes with the core: what is queued is written, for a second at most; then its sinks are
 * closed. Whoever has a close hook calls this before adding it, so that the hook comes first.
 */
sl_writer *sl_writer_of(sl_core *core);

/**
 * Gives a sink to the writer, which closes it with sl_sink_close() or at the end of the instance,
 * whichever is first. `*owner`, which must live as long, becomes the sink, then NULL.
 */
void sl_writer_add(sl_writer *writer, sl_sink *sink, sl_sink **owner);

/** Queues a copy of the record, or writes it. False: there was no room, it was counted. */
bool sl_sink_push(sl_sink *sink, const sl_record *record);
/** Closes the sink when its records are written; it is the owner's no more. NULL does nothing. */
void sl_sink_close(sl_sink *sink);

/** Records of the sink that are not written yet, or were dropped. */
size_t sl_sink_queued(sl_sink *sink);
uint64_t sl_sink_dropped(sl_sink *sink);
/** Has every sink that can be reopened open its place anew. Returns whether there is one. */
bool sl_writer_reopen(sl_core *core);

/** Has flush->on_done called when all that was pushed so far is written. False: it is already. */
bool sl_writer_flush(sl_writer *writer, sl_flush *flush);
/** Idempotent. */
void sl_flush_stop(sl_flush *flush);

/* ---- what sinks call, on the thread ---- */

/** Readable when the instance ends and its time for writing is over; -1 without a thread. */
int sl_sink_stop_fd(sl_sink *sink);
/** Counts records that could not be written. */
void sl_sink_failed(sl_sink *sink, uint64_t count);
/** Has on_notice called on the core's thread. */
void sl_sink_notify(sl_sink *sink);

#endif
