/* SPDX-License-Identifier: MIT */
/* A queue of bytes: appended at its end, consumed at its front. */
#include "bytes.h"

#include <string.h>

enum {
    BYTES_SIZE_MIN = 512,
};

static bool bytes_grow(sl_core *core, sl_bytes *bytes, size_t wanted)
{
    size_t size = bytes->size ? bytes->size : BYTES_SIZE_MIN;
    while (size < wanted) {
        if (size > SIZE_MAX / 2)
            return false;
        size *= 2;
    }
    char *data = sl_realloc(core, bytes->data, size);
    if (!data)
        return false;
    bytes->data = data;
    bytes->size = size;
    return true;
}

char *sl_bytes_extend(sl_core *core, sl_bytes *bytes, size_t length)
{
    if (length > bytes->size - bytes->end && bytes->start > 0) {
        memmove(bytes->data, bytes->data + bytes->start, sl_bytes_length(bytes));
        bytes->end -= bytes->start;
        bytes->start = 0;
    }
    if (length > bytes->size - bytes->end) {
        if (length > SIZE_MAX - bytes->end || !bytes_grow(core, bytes, bytes->end + length))
            return NULL;
    }
    bytes->end += length;
    return bytes->data + bytes->end - length;
}

bool sl_bytes_append(sl_core *core, sl_bytes *bytes, const void *data, size_t length)
{
    if (length == 0)
        return true;
    char *at = sl_bytes_extend(core, bytes, length);
    if (at)
        memcpy(at, data, length);
    return at != NULL;
}

void sl_bytes_consume(sl_core *core, sl_bytes *bytes, size_t length)
{
    bytes->start += length;
    if (bytes->start == bytes->end)
        sl_bytes_fini(core, bytes);
}

void sl_bytes_fini(sl_core *core, sl_bytes *bytes)
{
    sl_free(core, bytes->data);
    *bytes = (sl_bytes){0};
}
