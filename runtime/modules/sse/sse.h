/* SPDX-License-Identifier: MIT */
/*
 * Reads an event stream (WHATWG HTML, section 9.2): bytes in, events out, whatever the split.
 *
 * The bytes of one feed are walked in place: an event that lies in them whole, on one line of data,
 * is never copied. What is kept between two feeds is one unfinished event, bounded by `max_event`.
 */
#ifndef SL_SSE_H
#define SL_SSE_H

#include "../json/engine.h"

/** Holds until the next call for the same reader. */
typedef struct sl_sse_text {
    const char *data;
    size_t size;
} sl_sse_text;

typedef struct sl_sse_event {
    /** The data lines, joined by a line feed each. */
    sl_sse_text data;
    /** Empty: "message". */
    sl_sse_text type;
    /** The last event id; `data` is NULL where the stream has not named one. */
    sl_sse_text id;
    /** The `retry` among the lines of this event, in milliseconds; -1: none. */
    int64_t retry;
} sl_sse_event;

typedef enum sl_sse_status {
    SL_SSE_NO_MEMORY = -2,
    /** The event is larger than `max_event`; the reader is of no use until it is reset. */
    SL_SSE_TOO_LARGE = -1,
    /** All that was fed has been read. */
    SL_SSE_NEEDS_MORE = 0,
    SL_SSE_EVENT = 1,
} sl_sse_status;

typedef struct sl_sse_reader {
    /* read by the owner */
    /** In milliseconds; -1 where the stream has not said one. */
    int64_t retry;
    /** Of the last blank line; it outlives a reset. */
    sl_json_buffer last_id;
    bool has_id;

    /* private */
    /** What is left of the bytes that were fed, and the next line ends in it (`end`: none). */
    const char *at, *end, *lf, *cr;
    /** The beginning of a line that earlier feeds left unfinished. */
    sl_json_buffer line;
    /** The event so far. Its data is `whole`, a part of what was fed, or else `data`. */
    sl_json_buffer data, type, id;
    sl_sse_text whole;
    int64_t event_retry;
    /** Bytes of the event's finished lines, and the most that all of them may have. */
    size_t size, max_event;
    bool has_data, id_changed, in_comment, after_cr, is_started, is_dispatched, too_large;
} sl_sse_reader;

/** A reader without memory of its own yet. Cannot fail. */
void sl_sse_init(sl_sse_reader *reader, size_t max_event, sl_json_alloc alloc, void *user);
/** Frees the memory; idempotent. */
void sl_sse_fini(sl_sse_reader *reader);
/** Begins with these bytes; they must hold until sl_sse_next has asked for more. */
void sl_sse_feed(sl_sse_reader *reader, const char *bytes, size_t size);
/** The next event of what was fed. */
sl_sse_status sl_sse_next(sl_sse_reader *reader, sl_sse_event *event);
/** The stream has ended: drops what is unfinished; the next feed begins another stream. */
void sl_sse_reset(sl_sse_reader *reader);
/** The id that a stream before this one ended with. False without memory. */
bool sl_sse_set_last_id(sl_sse_reader *reader, const char *id, size_t size);

#endif
