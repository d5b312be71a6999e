/* SPDX-License-Identifier: MIT */
/* A strict reader of request bodies: by length or chunked, extensions and trailers thrown away. */
#ifndef SL_SERVER_BODY_H
#define SL_SERVER_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    /** Bytes of chunk extensions and trailers in one body; more is refused. */
    SL_BODY_OVERHEAD_MAX = 16384,
};

typedef struct sl_body {
    /** Bytes still to come: of the body, or of the chunk. */
    uint64_t left;
    /** Bytes of extensions and trailers so far. */
    uint32_t overhead;
    uint8_t state;
    uint8_t digits;
} sl_body;

typedef enum sl_body_result {
    /** All bytes are used up and the body goes on. */
    SL_BODY_MORE,
    /** A piece of content; go on after it. */
    SL_BODY_PIECE,
    /** The body ended; what follows the used bytes is the next request. */
    SL_BODY_END,
    /** Not a body; what follows cannot be read. */
    SL_BODY_BAD,
} sl_body_result;

/** What the reader found: how many bytes it used, and the content among them, if any. */
typedef struct sl_body_step {
    size_t used;
    const char *piece;
    size_t length;
} sl_body_step;

/** Starts on a body: chunked, or of so many bytes. */
void sl_body_init(sl_body *body, bool chunked, uint64_t length);
bool sl_body_ended(const sl_body *body);
/** Reads on in `bytes`, up to and including the next piece of content. */
sl_body_result sl_body_read(sl_body *body, const char *bytes, size_t length, sl_body_step *step);

#endif
