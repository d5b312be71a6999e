/* SPDX-License-Identifier: MIT */
/* The reader of event streams: lines, fields, events. */
#include "sse.h"

enum {
    /** Bytes of room that stay with a reader; what a larger event took is freed after it. */
    SSE_MAX_KEPT = 4096,
};

void sl_sse_init(sl_sse_reader *reader, size_t max_event, sl_json_alloc alloc, void *user)
{
    *reader = (sl_sse_reader){.retry = -1, .event_retry = -1, .max_event = max_event};
    sl_json_buffer_init(&reader->last_id, alloc, user);
    reader->line = reader->data = reader->type = reader->id = reader->last_id;
}

void sl_sse_fini(sl_sse_reader *reader)
{
    sl_json_buffer_fini(&reader->last_id);
    sl_json_buffer_fini(&reader->line);
    sl_json_buffer_fini(&reader->data);
    sl_json_buffer_fini(&reader->type);
    sl_json_buffer_fini(&reader->id);
    reader->at = reader->end = NULL;
}

void sl_sse_feed(sl_sse_reader *reader, const char *bytes, size_t size)
{
    reader->at = bytes;
    reader->end = bytes + size;
    /* before `at`: to be looked for */
    reader->lf = reader->cr = NULL;
}

static void sse_empty(sl_json_buffer *buffer)
{
    buffer->length = 0;
    if (buffer->capacity > SSE_MAX_KEPT)
        sl_json_buffer_fini(buffer);
}

static bool sse_append(sl_json_buffer *buffer, const char *data, size_t size)
{
    if (size == 0)
        return true;
    char *out = sl_json_reserve(buffer, size);
    if (!out)
        return false;
    memcpy(out, data, size);
    buffer->length += size;
    return true;
}

static bool sse_copy(sl_json_buffer *to, const sl_json_buffer *from)
{
    to->length = 0;
    return sse_append(to, from->data, from->length);
}

/** Never NULL. */
static sl_sse_text sse_text_of(const sl_json_buffer *buffer)
{
    return (sl_sse_text){buffer->length > 0 ? buffer->data : "", buffer->length};
}

bool sl_sse_set_last_id(sl_sse_reader *reader, const char *id, size_t size)
{
    reader->last_id.length = reader->id.length = 0;
    reader->has_id = true;
    return sse_append(&reader->last_id, id, size) && sse_append(&reader->id, id, size);
}

static void sse_begin_event(sl_sse_reader *reader)
{
    sse_empty(&reader->data);
    sse_empty(&reader->type);
    reader->whole = (sl_sse_text){NULL, 0};
    reader->event_retry = -1;
    reader->size = 0;
    reader->has_data = reader->is_dispatched = false;
}

void sl_sse_reset(sl_sse_reader *reader)
{
    sse_begin_event(reader);
    sse_empty(&reader->line);
    sl_sse_feed(reader, "", 0);
    if (reader->id_changed && !sse_copy(&reader->id, &reader->last_id))
        reader->id.length = 0;
    reader->id_changed = reader->in_comment = reader->after_cr = reader->is_started = false;
    reader->too_large = false;
}

/* ---- UTF-8, by the decoder of the encoding standard ---- */

static const char *sse_skip_ascii(const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        if (word & UINT64_C(0x8080808080808080))
            break;
        p += 8;
    }
    while (p < end && (signed char)*p >= 0)
        p++;
    return p;
}

/** The first byte that is no part of valid UTF-8, or `end`. */
static const char *sse_skip_valid(const char *p, const char *end)
{
    for (;;) {
        p = sse_skip_ascii(p, end);
        if (p == end)
            return p;
        int length = sl_json_utf8_length(p, end);
        if (length < 0)
            return p;
        p += length;
    }
}

/** Appends the text with U+FFFD for each broken sequence; `bad` is its first broken byte. */
static bool sse_append_repaired(sl_json_buffer *buffer, sl_sse_text text, const char *bad)
{
    const char *p = text.data, *end = text.data + text.size;
    while (bad < end) {
        if (!sse_append(buffer, p, (size_t)(bad - p)) || !sse_append(buffer, "\xEF\xBF\xBD", 3))
            return false;
        p = bad - sl_json_utf8_length(bad, end);
        bad = sse_skip_valid(p, end);
    }
    return sse_append(buffer, p, (size_t)(end - p));
}

static bool sse_append_text(sl_json_buffer *buffer, sl_sse_text text)
{
    return sse_append_repaired(buffer, text, sse_skip_valid(text.data, text.data + text.size));
}

/* ---- fields ---- */

/** Moves the data out of what was fed. */
static bool sse_keep_data(sl_sse_reader *reader)
{
    sl_sse_text whole = reader->whole;
    reader->whole = (sl_sse_text){NULL, 0};
    return sse_append(&reader->data, whole.data, whole.size);
}

static bool sse_add_data(sl_sse_reader *reader, sl_sse_text value, bool is_fed)
{
    const char *bad = sse_skip_valid(value.data, value.data + value.size);
    if (!reader->has_data) {
        reader->has_data = true;
        if (is_fed && bad == value.data + value.size) {
            reader->whole = value;
            return true;
        }
    } else if (!sse_keep_data(reader) || !sse_append(&reader->data, "\n", 1)) {
        return false;
    }
    return sse_append_repaired(&reader->data, value, bad);
}

static void sse_set_retry(sl_sse_reader *reader, sl_sse_text value)
{
    int64_t retry = 0;
    for (size_t i = 0; i < value.size; i++) {
        if (!sl_json_is_digit(value.data[i]))
            return;
        int digit = value.data[i] - '0';
        retry = retry > (INT64_MAX - digit) / 10 ? INT64_MAX : retry * 10 + digit;
    }
    if (value.size > 0)
        reader->retry = reader->event_retry = retry;
}

static bool sse_set_text(sl_json_buffer *buffer, sl_sse_text value)
{
    buffer->length = 0;
    return sse_append_text(buffer, value);
}

static bool sse_set_id(sl_sse_reader *reader, sl_sse_text value)
{
    if (value.size > 0 && memchr(value.data, 0, value.size))
        return true;
    reader->id_changed = true;
    return sse_set_text(&reader->id, value);
}

static bool sse_is_name(const char *line, size_t size, const char *name)
{
    return size == strlen(name) && memcmp(line, name, size) == 0;
}

/** A line that is neither blank nor a comment. `is_fed`: it lies in what was fed. */
static bool sse_read_field(sl_sse_reader *reader, const char *line, size_t size, bool is_fed)
{
    enum { LONGEST_NAME = 5 };
    size_t name_size = 0;
    while (name_size < size && line[name_size] != ':') {
        if (++name_size > LONGEST_NAME)
            return true;
    }
    sl_sse_text value = {line + name_size, size - name_size};
    size_t skipped = value.size == 0 ? 0 : value.size > 1 && value.data[1] == ' ' ? 2 : 1;
    value.data += skipped;
    value.size -= skipped;
    if (sse_is_name(line, name_size, "data"))
        return sse_add_data(reader, value, is_fed);
    if (sse_is_name(line, name_size, "event"))
        return sse_set_text(&reader->type, value);
    if (sse_is_name(line, name_size, "id"))
        return sse_set_id(reader, value);
    if (sse_is_name(line, name_size, "retry"))
        sse_set_retry(reader, value);
    return true;
}

/* ---- lines ---- */

static const char *sse_find(const char *at, const char *end, char byte)
{
    const char *found = at < end ? memchr(at, byte, (size_t)(end - at)) : NULL;
    return found ? found : end;
}

/** The next line end. Both kinds are looked for once each, not at every line. */
static const char *sse_line_end(sl_sse_reader *reader)
{
    if (!reader->lf || reader->lf < reader->at)
        reader->lf = sse_find(reader->at, reader->end, '\n');
    if (!reader->cr || reader->cr < reader->at)
        reader->cr = sse_find(reader->at, reader->end, '\r');
    return reader->lf < reader->cr ? reader->lf : reader->cr;
}

/** Whether the event is too large with these bytes of a line more. */
static bool sse_is_too_large(sl_sse_reader *reader, size_t more)
{
    size_t size = reader->size + reader->line.length;
    reader->too_large = size > reader->max_event || more > reader->max_event - size;
    return reader->too_large;
}

/** What was fed ends in the middle of a line, or of an event. */
static sl_sse_status sse_keep_rest(sl_sse_reader *reader)
{
    size_t size = (size_t)(reader->end - reader->at);
    if (size > 0 && reader->line.length == 0 && *reader->at == ':')
        reader->in_comment = true;
    if (reader->in_comment)
        size = 0;
    if (sse_is_too_large(reader, size))
        return SL_SSE_TOO_LARGE;
    if (!sse_append(&reader->line, reader->at, size) || !sse_keep_data(reader))
        return SL_SSE_NO_MEMORY;
    reader->at = reader->end;
    return SL_SSE_NEEDS_MORE;
}

/** At a blank line: whether there is an event. */
static sl_sse_status sse_dispatch(sl_sse_reader *reader, sl_sse_event *event)
{
    if (reader->id_changed) {
        if (!sse_copy(&reader->last_id, &reader->id))
            return SL_SSE_NO_MEMORY;
        reader->id_changed = false;
        reader->has_id = true;
    }
    if (!reader->has_data) {
        sse_begin_event(reader);
        return SL_SSE_NEEDS_MORE;
    }
    *event = (sl_sse_event){
        .data = reader->whole.data ? reader->whole : sse_text_of(&reader->data),
        .type = sse_text_of(&reader->type),
        .retry = reader->event_retry,
    };
    if (reader->has_id)
        event->id = sse_text_of(&reader->last_id);
    reader->is_dispatched = true;
    return SL_SSE_EVENT;
}

/** A whole line. */
static sl_sse_status sse_read_line(sl_sse_reader *reader, const char *line, size_t size,
                                   bool is_fed, sl_sse_event *event)
{
    if (!reader->is_started) {
        reader->is_started = true;
        if (size >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
            line += 3;
            size -= 3;
        }
    }
    if (size == 0)
        return sse_dispatch(reader, event);
    if (line[0] == ':')
        return SL_SSE_NEEDS_MORE;
    reader->size += size;
    return sse_read_field(reader, line, size, is_fed) ? SL_SSE_NEEDS_MORE : SL_SSE_NO_MEMORY;
}

/** Takes the line that ends at `stop`. */
static sl_sse_status sse_take_line(sl_sse_reader *reader, const char *stop, sl_sse_event *event)
{
    const char *line = reader->at;
    size_t size = (size_t)(stop - line);
    bool is_comment = reader->in_comment || (reader->line.length == 0 && size > 0 && *line == ':');
    if (!is_comment && sse_is_too_large(reader, size))
        return SL_SSE_TOO_LARGE;
    bool is_fed = reader->line.length == 0;
    if (!is_comment && !is_fed) {
        if (!sse_append(&reader->line, line, size))
            return SL_SSE_NO_MEMORY;
        line = reader->line.data;
        size = reader->line.length;
    }
    reader->at = stop + 1;
    reader->after_cr = *stop == '\r';
    if (is_comment) {
        reader->in_comment = false;
        reader->is_started = true;
        return SL_SSE_NEEDS_MORE;
    }
    sl_sse_status status = sse_read_line(reader, line, size, is_fed, event);
    sse_empty(&reader->line);
    return status;
}

sl_sse_status sl_sse_next(sl_sse_reader *reader, sl_sse_event *event)
{
    if (reader->too_large)
        return SL_SSE_TOO_LARGE;
    if (reader->is_dispatched)
        sse_begin_event(reader);
    for (;;) {
        if (reader->after_cr && reader->at < reader->end) {
            reader->at += *reader->at == '\n';
            reader->after_cr = false;
        }
        const char *stop = sse_line_end(reader);
        if (stop == reader->end)
            return sse_keep_rest(reader);
        sl_sse_status status = sse_take_line(reader, stop, event);
        if (status != SL_SSE_NEEDS_MORE)
            return status;
    }
}
