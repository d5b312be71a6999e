/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the reader of event streams: the same bytes give the same events however they are split,
 * and what comes out is valid UTF-8.
 *
 * The first byte chooses the limit of an event, the second the sizes of the pieces.
 */
#include "modules/sse/sse.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require_that(bool is_so, const char *what)
{
    if (!is_so) {
        fprintf(stderr, "sse_fuzz: %s\n", what);
        abort();
    }
}

static void *plain_alloc(void *user, void *block, size_t old_size, size_t new_size)
{
    (void)user;
    (void)old_size;
    if (new_size == 0) {
        free(block);
        return NULL;
    }
    return realloc(block, new_size);
}

static void put(sl_json_buffer *out, const void *bytes, size_t size)
{
    char *room = sl_json_reserve(out, size + 1);
    require_that(room != NULL, "no memory");
    memcpy(room, bytes, size);
    out->length += size;
}

static void put_text(sl_json_buffer *out, sl_sse_text text)
{
    if (!text.data)
        text.data = "none";
    const char *end = text.data + text.size;
    for (const char *p = text.data; p < end;) {
        int length = *p & 0x80 ? sl_json_utf8_length(p, end) : 1;
        require_that(length > 0, "invalid UTF-8 came out");
        p += length;
    }
    put(out, &text.size, sizeof text.size);
    if (text.size > 0)
        put(out, text.data, text.size);
}

/* Everything of an event, appended. */
static void put_event(sl_json_buffer *out, const sl_sse_event *event)
{
    put_text(out, event->data);
    put_text(out, event->type);
    put_text(out, event->id);
    put(out, &event->retry, sizeof event->retry);
}

/* The next piece's size; in memory of its own, so that reading beyond it is seen. */
static size_t next_size(size_t *seed, size_t left)
{
    if (*seed == 0)
        return left;
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    size_t size = 1 + (*seed >> 33) % 7;
    return size < left ? size : left;
}

static sl_sse_status feed_piece(sl_sse_reader *reader, const uint8_t *data, size_t size,
                                sl_json_buffer *out)
{
    char *piece = malloc(size);
    require_that(piece != NULL, "no memory");
    memcpy(piece, data, size);
    sl_sse_feed(reader, piece, size);
    sl_sse_event event;
    sl_sse_status status;
    while ((status = sl_sse_next(reader, &event)) == SL_SSE_EVENT)
        put_event(out, &event);
    require_that(status != SL_SSE_NO_MEMORY, "no memory");
    free(piece);
    return status;
}

static void read_all(const uint8_t *data, size_t size, size_t max_event, size_t seed,
                     sl_json_buffer *out)
{
    sl_sse_reader reader;
    sl_sse_init(&reader, max_event, plain_alloc, NULL);
    while (size > 0) {
        size_t part = next_size(&seed, size);
        if (feed_piece(&reader, data, part, out) == SL_SSE_TOO_LARGE) {
            put(out, "too large", 9);
            break;
        }
        data += part;
        size -= part;
    }
    sl_sse_reset(&reader);
    put(out, &reader.retry, sizeof reader.retry);
    put(out, &reader.last_id.length, sizeof reader.last_id.length);
    sl_sse_fini(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t max_event = data[0] ? data[0] : 1 << 20, seed = 1u + data[1];
    sl_json_buffer whole, split;
    sl_json_buffer_init(&whole, plain_alloc, NULL);
    sl_json_buffer_init(&split, plain_alloc, NULL);
    read_all(data + 2, size - 2, max_event, 0, &whole);
    read_all(data + 2, size - 2, max_event, seed, &split);
    require_that(whole.length == split.length && memcmp(whole.data, split.data, whole.length) == 0,
                 "a split changed what was read");
    sl_json_buffer_fini(&whole);
    sl_json_buffer_fini(&split);
    return 0;
}
