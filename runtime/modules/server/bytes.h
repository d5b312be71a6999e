/* SPDX-License-Identifier: MIT */
/* A queue of bytes: appended at its end, consumed at its front. Zeroed is empty. */
#ifndef SL_SERVER_BYTES_H
#define SL_SERVER_BYTES_H

#include "core/core.h"

typedef struct sl_bytes {
    char *data;
    /** What is consumed, what is filled, what is allocated: start <= end <= size. */
    size_t start, end, size;
} sl_bytes;

static inline size_t sl_bytes_length(const sl_bytes *bytes)
{
    return bytes->end - bytes->start;
}

/** Never NULL. */
static inline const char *sl_bytes_front(const sl_bytes *bytes)
{
    return bytes->data ? bytes->data + bytes->start : "";
}

/** False without memory; then nothing has changed. */
bool sl_bytes_append(sl_core *core, sl_bytes *bytes, const void *data, size_t length);
/** Appends so many bytes, which the caller fills in at once. NULL without memory. */
char *sl_bytes_extend(sl_core *core, sl_bytes *bytes, size_t length);
/** Frees the memory when that empties it. */
void sl_bytes_consume(sl_core *core, sl_bytes *bytes, size_t length);
void sl_bytes_fini(sl_core *core, sl_bytes *bytes);

#endif
