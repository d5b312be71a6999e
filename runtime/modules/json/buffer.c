/* SPDX-License-Identifier: MIT */
/* A growing buffer over any allocator. */
#include "engine.h"

enum { JSON_BUFFER_FIRST = 256 };

char *sl_json_buffer_extend(sl_json_buffer *buffer, size_t extra)
{
    size_t wanted;
    if (extra > SIZE_MAX / 2 - buffer->length)
        return NULL;
    wanted = buffer->length + extra;
    if (wanted < buffer->capacity + buffer->capacity / 2)
        wanted = buffer->capacity + buffer->capacity / 2;
    if (wanted < JSON_BUFFER_FIRST)
        wanted = JSON_BUFFER_FIRST;
    return buffer->grow(buffer, wanted) ? buffer->data + buffer->length : NULL;
}

static bool json_buffer_grow(sl_json_buffer *buffer, size_t capacity)
{
    char *block = buffer->alloc(buffer->user, buffer->data, buffer->capacity, capacity);
    if (block == NULL)
        return false;
    buffer->data = block;
    buffer->capacity = capacity;
    return true;
}

void sl_json_buffer_init(sl_json_buffer *buffer, sl_json_alloc alloc, void *user)
{
    *buffer = (sl_json_buffer){.grow = json_buffer_grow, .alloc = alloc, .user = user};
}

void sl_json_buffer_fini(sl_json_buffer *buffer)
{
    if (buffer->data != NULL)
        buffer->alloc(buffer->user, buffer->data, buffer->capacity, 0);
    buffer->data = NULL;
    buffer->length = buffer->capacity = 0;
}
