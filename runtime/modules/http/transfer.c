/* SPDX-License-Identifier: MIT */
/* A transfer: what the request is made of, the buffers of its answer, and what a wire reports. */
#include "private.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    /** A head, all its lines. Servers send some hundred bytes; proxies allow 8 to 64 KB. */
    HTTP_MAX_HEAD = 256 * 1024,
    /** Bytes of a streamed body at which reading stops: one piece of libcurl's at first, so that
     * thousands of readers that sleep hold little; twice as much each time a reader empties what
     * was full, up to eight pieces, which a fast reader seldom meets. */
    HTTP_FIRST_WATER = 16 * 1024,
    HTTP_HIGH_WATER = 128 * 1024,
    /** Bytes of a compressed body that may come out of one read of the wire: a thousand times what
     * went in is the most of gzip, zstd and brotli know no such bound. */
    HTTP_MAX_UNPACKED = 64 * 1024 * 1024,
    /** Bytes of an upload kept ahead of the wire. */
    HTTP_UPLOAD_AHEAD = 64 * 1024,
    /** A Content-Length is believed up to here when room is made before the bytes come. */
    HTTP_MAX_RESERVE = 1024 * 1024,
    /** What a buffer begins with, and up to which it is kept for others; most answers of a model
     * fit. */
    HTTP_LEAST_BUFFER = 1024,
    HTTP_MAX_KEPT = 16 * 1024,
};

/* ---- buffers ---- */

static bool http_buffer_reserve(sl_http_engine *engine, sl_http_buffer *buffer, size_t more)
{
    if (buffer->capacity - buffer->size >= more)
        return true;
    if (more > SIZE_MAX / 4 - buffer->size)
        return false;
    if (!buffer->data && engine->spare_count > 0) {
        *buffer = engine->spare[--engine->spare_count];
        if (buffer->capacity >= more)
            return true;
    }
    size_t capacity = buffer->capacity ? buffer->capacity : HTTP_LEAST_BUFFER;
    while (capacity - buffer->size < more)
        capacity *= 2;
    char *data = sl_realloc(engine->core, buffer->data, capacity);
    if (!data)
        return false;
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

static bool http_buffer_append(sl_http_engine *engine, sl_http_buffer *buffer, const char *data,
                               size_t size)
{
    if (size == 0)
        return true;
    if (!http_buffer_reserve(engine, buffer, size))
        return false;
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    return true;
}

/** Keeps one of a usual size for the next transfer that needs one. */
static void http_buffer_fini(sl_http_engine *engine, sl_http_buffer *buffer)
{
    if (buffer->data && buffer->capacity <= HTTP_MAX_KEPT && !engine->closing &&
        engine->spare_count < HTTP_SPARE_BUFFERS) {
        engine->spare[engine->spare_count++] =
            (sl_http_buffer){.data = buffer->data, .capacity = buffer->capacity};
    } else {
        sl_free(engine->core, buffer->data);
    }
    *buffer = (sl_http_buffer){0};
}

void sl_http_spare_free(sl_http_engine *engine)
{
    while (engine->spare_count > 0)
        sl_free(engine->core, engine->spare[--engine->spare_count].data);
}

/* ---- what a request is made of ---- */

static bool http_is_token(const char *text, size_t size)
{
    static const char special[] = "!#$%&'*+-.^_`|~";
    if (size == 0)
        return false;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        bool alnum = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
        if (!alnum && (c == 0 || !strchr(special, c)))
            return false;
    }
    return true;
}

static bool http_is_value(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\t') || c == 0x7F)
            return false;
    }
    return true;
}

static bool http_is_name(const sl_http_field *field, const char *name)
{
    return field->name_size == strlen(name) &&
           strncasecmp(field->name, name, field->name_size) == 0;
}

static const char *http_check_request(const sl_http_request *request)
{
    size_t length = strlen(request->method);
    if (!http_is_token(request->method, length))
        return "method is not a word of HTTP";
    if (length >= sizeof((sl_http_transfer *)0)->method)
        return "method is too long";
    for (size_t i = 0; i < request->field_count; i++) {
        const sl_http_field *field = &request->fields[i];
        if (!http_is_token(field->name, field->name_size))
            return "a header's name holds a byte that is not allowed, or nothing";
        if (!http_is_value(field->value, field->value_size))
            return "a header's value holds a control byte, such as a line end";
    }
    return NULL;
}

/** The length of the body is the wire's to say: two that differ are how requests are smuggled. */
static bool http_is_framing(const sl_http_field *field)
{
    return http_is_name(field, "content-length") || http_is_name(field, "transfer-encoding");
}

static bool http_is_event_stream(const sl_http_field *field)
{
    static const char type[] = "text/event-stream";
    return field->value_size == sizeof type - 1 &&
           strncasecmp(field->value, type, sizeof type - 1) == 0;
}

static bool http_copy_fields(sl_http_transfer *transfer, const sl_http_request *request)
{
    size_t size = 0;
    for (size_t i = 0; i < request->field_count; i++)
        size += request->fields[i].name_size + request->fields[i].value_size + 3;
    if (!http_buffer_reserve(transfer->engine, &transfer->lines, size))
        return false;
    char *out = transfer->lines.data;
    for (size_t i = 0; i < request->field_count; i++) {
        const sl_http_field *field = &request->fields[i];
        if (http_is_framing(field))
            continue;
        if (http_is_name(field, "content-type"))
            transfer->has_content_type = true;
        if (http_is_name(field, "accept-encoding"))
            transfer->has_accept_encoding = true;
        if (http_is_name(field, "user-agent"))
            transfer->has_user_agent = true;
        if (http_is_name(field, "accept") && http_is_event_stream(field))
            transfer->wants_events = true;
        memcpy(out, field->name, field->name_size);
        out += field->name_size;
        *out++ = ':';
        *out++ = ' ';
        memcpy(out, field->value, field->value_size);
        out += field->value_size;
        *out++ = '\0';
        transfer->line_count++;
    }
    return true;
}

/** Cut where it is long. */
static void http_copy_text(char *to, size_t room, const char *text)
{
    size_t size = strnlen(text, room - 1);
    memcpy(to, text, size);
    to[size] = '\0';
}

static bool http_copy_request(sl_http_transfer *transfer, const sl_http_request *request)
{
    const sl_http_settings *settings = request->settings;
    http_copy_text(transfer->method, sizeof transfer->method, request->method);
    http_copy_text(transfer->label, sizeof transfer->label, transfer->target->label);
    memcpy(transfer->limits, settings->limits, sizeof transfer->limits);
    transfer->max_response = settings->max_response;
    transfer->request_body = request->body;
    transfer->request_body_size = request->body_size;
    transfer->is_upload = request->upload;
    transfer->streamed = settings->streamed;
    transfer->high_water = HTTP_FIRST_WATER;
    transfer->verify = settings->verify;
    transfer->decompress = settings->decompress;
    if (settings->ca_file) {
        size_t size = strlen(settings->ca_file) + 1;
        transfer->ca_file = sl_alloc(transfer->engine->core, size);
        if (!transfer->ca_file)
            return false;
        memcpy(transfer->ca_file, settings->ca_file, size);
    }
    return http_copy_fields(transfer, request);
}

/** What the host of the runtime does not grant; NULL when it may go. */
static const char *http_refuse(const sl_http_engine *engine, const sl_http_target *target,
                               const char *method)
{
    const char *reason = sl_refuse_method(engine->core, method);
    if (!reason && !engine->is_local)
        reason = sl_refuse_connection(engine->core, target->host->name, target->host->port);
    return reason;
}

const char *sl_http_transfer_start(sl_http_engine *engine, sl_http_transfer *transfer,
                                   const sl_http_request *request)
{
    const char *reason = http_check_request(request);
    if (reason)
        return reason;
    transfer->target =
        sl_http_target_get(&engine->targets, request->url, request->url_size, &reason);
    if (!transfer->target)
        return reason;
    reason = http_refuse(engine, transfer->target, request->method);
    if (reason) {
        sl_http_target_release(&engine->targets, transfer->target);
        transfer->target = NULL;
        return reason;
    }
    transfer->engine = engine;
    transfer->state = SL_HTTP_QUEUED;
    transfer->started = sl_now_update(engine->core);
    if (!http_copy_request(transfer, request)) {
        sl_http_on_failure(transfer, NULL, "queue", "not enough memory");
        return NULL;
    }
    if (!sl_count_request(engine->core) || !sl_count_bytes(engine->core, request->body_size)) {
        sl_http_on_failure(transfer, SL_LIMIT_KIND, "queue", SL_LIMIT_TEXT);
        return NULL;
    }
    sl_http_admit(transfer);
    return NULL;
}

static void http_buffers_fini(sl_http_engine *engine, sl_http_transfer *transfer)
{
    http_buffer_fini(engine, &transfer->head);
    http_buffer_fini(engine, &transfer->lines);
    http_buffer_fini(engine, &transfer->upload);
    http_buffer_fini(engine, &transfer->body);
}

void sl_http_transfer_release(sl_http_transfer *transfer)
{
    sl_http_engine *engine = transfer->engine;
    if (!engine)
        return;
    sl_http_list_move(transfer, NULL);
    sl_http_target_release(&engine->targets, transfer->target);
    transfer->target = NULL;
    http_buffers_fini(engine, transfer);
    sl_free(engine->core, transfer->ca_file);
    transfer->ca_file = NULL;
    transfer->request_body = NULL;
    transfer->engine = NULL;
}

void sl_http_transfer_stop(sl_http_transfer *transfer)
{
    if (!transfer->engine)
        return;
    if (!sl_http_transfer_is_over(transfer)) {
        transfer->on_change = NULL;
        sl_http_abort(transfer);
    }
    sl_http_transfer_release(transfer);
    transfer->state = SL_HTTP_IDLE_STATE;
}

void sl_http_transfer_taken(sl_http_transfer *transfer, size_t size)
{
    sl_http_buffer *body = &transfer->body;
    body->taken += size;
    if (body->taken == body->size)
        http_buffer_fini(transfer->engine, body); /* most streams wait with nothing in hand */
    if (!transfer->paused || transfer->state != SL_HTTP_BODY)
        return;
    sl_http_engine *engine = transfer->engine;
    if (body->size == 0 && transfer->high_water < HTTP_HIGH_WATER)
        transfer->high_water *= 2;
    transfer->paused = false;
    transfer->last_activity = sl_now_update(engine->core);
    sl_http_limits_update(transfer);
    engine->wire->resume(engine->wire, transfer);
}

void sl_http_transfer_reset(sl_http_transfer *transfer)
{
    sl_http_engine *engine = transfer->engine;
    if (!engine || transfer->state < SL_HTTP_DONE)
        return;
    void (*on_change)(sl_http_transfer *) = transfer->on_change;
    sl_free(engine->core, transfer->ca_file);
    http_buffers_fini(engine, transfer);
    sl_http_list_move(transfer, NULL);
    /* up to the texts: a kilobyte for each request would push others out of the cache */
    memset(transfer, 0, offsetof(sl_http_transfer, failure.message));
    transfer->failure.message[0] = transfer->label[0] = '\0';
    transfer->on_change = on_change;
    transfer->engine = engine;
    /* so that closing the engine frees what it keeps */
    sl_http_list_move(transfer, &engine->finished);
}

bool sl_http_transfer_head_taken(sl_http_transfer *transfer)
{
    if (!transfer->head_complete || !transfer->streamed)
        return false;
    http_buffer_fini(transfer->engine, &transfer->head);
    /* where the answer is another one, libcurl may send the request again */
    if (transfer->status / 100 != 2)
        return false;
    http_buffer_fini(transfer->engine, &transfer->lines);
    sl_http_wire *wire = transfer->engine->wire;
    if (transfer->wire && !wire->has_sent(wire, transfer))
        return false; /* a server may answer before it has read it */
    transfer->request_body = NULL;
    return true;
}

static void http_feed_upload(sl_http_transfer *transfer)
{
    if (!transfer->upload_starved || transfer->state >= SL_HTTP_DONE)
        return;
    transfer->upload_starved = false;
    transfer->engine->wire->resume(transfer->engine->wire, transfer);
}

int sl_http_transfer_send(sl_http_transfer *transfer, const char *data, size_t size)
{
    sl_http_buffer *upload = &transfer->upload;
    if (transfer->state >= SL_HTTP_DONE || transfer->upload_ended)
        return 1;
    if (upload->size - upload->taken >= HTTP_UPLOAD_AHEAD)
        return 0;
    if (upload->taken > 0) {
        upload->size -= upload->taken;
        memmove(upload->data, upload->data + upload->taken, upload->size);
        upload->taken = 0;
    }
    if (!http_buffer_append(transfer->engine, upload, data, size))
        return -1;
    http_feed_upload(transfer);
    return 1;
}

void sl_http_transfer_send_end(sl_http_transfer *transfer)
{
    transfer->upload_ended = true;
    http_feed_upload(transfer);
}

bool sl_http_transfer_is_over(const sl_http_transfer *transfer)
{
    return transfer->state >= SL_HTTP_DONE || transfer->state == SL_HTTP_IDLE_STATE;
}

void sl_http_transfer_timing(const sl_http_transfer *transfer, sl_http_timing *timing)
{
    int64_t end = transfer->ended;
    if (!end && transfer->engine)
        end = sl_now_update(transfer->engine->core);
    *timing = (sl_http_timing){
        .queue = transfer->admitted ? transfer->admitted - transfer->started : 0,
        .resolve = transfer->resolved ? transfer->resolved - transfer->admitted : 0,
        .connect = transfer->connect_time,
        .tls = transfer->tls_time,
        .first_byte = transfer->first_byte ? transfer->first_byte - transfer->ready : 0,
        .total = end - transfer->started,
        .reused = transfer->reused,
    };
}

/* ---- what a wire reports ---- */

const char *sl_http_phase(const sl_http_transfer *transfer)
{
    static const char *const names[] = {
        [SL_HTTP_IDLE_STATE] = "queue",   [SL_HTTP_QUEUED] = "queue",
        [SL_HTTP_RESOLVING] = "resolve",  [SL_HTTP_CONNECTING] = "connect",
        [SL_HTTP_WAITING] = "first_byte", [SL_HTTP_HEAD] = "head",
        [SL_HTTP_BODY] = "body",          [SL_HTTP_DONE] = "body",
        [SL_HTTP_FAILED] = "body",
    };
    return names[transfer->state];
}

void sl_http_failure_set(sl_http_transfer *transfer, const char *kind, const char *phase,
                         const char *format, ...)
{
    sl_http_failure *failure = &transfer->failure;
    if (failure->message[0])
        return;
    failure->kind = kind;
    failure->phase = phase;
    failure->maybe_executed = transfer->state >= SL_HTTP_WAITING;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure->message, sizeof failure->message, format, arguments);
    va_end(arguments);
}

/** What may be sent twice without a second effect (RFC 9110, 9.2.2). */
static bool http_is_idempotent(const char *method)
{
    return strcmp(method, "POST") != 0 && strcmp(method, "PATCH") != 0;
}

enum sl_http_verdict sl_http_on_ready(sl_http_transfer *transfer)
{
    if (transfer->state == SL_HTTP_WAITING && !http_is_idempotent(transfer->method)) {
        sl_http_failure_set(transfer, "ConnectError", "first_byte",
                            "a kept connection was closed before an answer");
        return SL_HTTP_ABORT;
    }
    transfer->state = SL_HTTP_WAITING;
    transfer->ready = transfer->last_activity = sl_now(transfer->engine->core);
    sl_http_limits_update(transfer);
    return SL_HTTP_GO_ON;
}

static enum sl_http_verdict http_no_memory(sl_http_transfer *transfer)
{
    sl_http_failure_set(transfer, NULL, sl_http_phase(transfer), "not enough memory");
    return SL_HTTP_ABORT;
}

static enum sl_http_verdict http_too_large(sl_http_transfer *transfer, uint64_t limit,
                                           const char *name)
{
    sl_http_failure_set(transfer, "ProtocolError", sl_http_phase(transfer),
                        "answer of more than %" PRIu64 " bytes (%s)", limit, name);
    transfer->failure.code = "RESPONSE_TOO_LARGE";
    return SL_HTTP_ABORT;
}

/** A Content-Length is digits (RFC 9110, 8.6); libcurl takes what begins with some. */
static bool http_read_length(const char *text, const char *end, uint64_t *length)
{
    while (text < end && (*text == ' ' || *text == '\t'))
        text++;
    while (end > text && strchr(" \t\r\n", end[-1]))
        end--;
    *length = 0;
    if (text == end || end - text > 18)
        return false;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return false;
        *length = *length * 10 + (uint64_t)(*text - '0');
    }
    return true;
}

/** Refuses a body that says it is too large, before its bytes come; makes room for the others. */
static enum sl_http_verdict http_expect_length(sl_http_transfer *transfer, const char *line,
                                               size_t size)
{
    static const char name[] = "content-length:";
    if (size < sizeof name || strncasecmp(line, name, sizeof name - 1) != 0)
        return SL_HTTP_GO_ON;
    uint64_t expected;
    if (!http_read_length(line + sizeof name - 1, line + size, &expected)) {
        sl_http_failure_set(transfer, "ProtocolError", "head", "a length that is no number");
        return SL_HTTP_ABORT;
    }
    if (transfer->has_length && expected != transfer->length) {
        sl_http_failure_set(transfer, "ProtocolError", "head", "two lengths that differ");
        return SL_HTTP_ABORT;
    }
    transfer->has_length = true;
    transfer->length = expected;
    bool bodiless = transfer->status == 204 || transfer->status == 304;
    if (bodiless || strcmp(transfer->method, "HEAD") == 0)
        return SL_HTTP_GO_ON;
    if (transfer->max_response && expected > transfer->max_response)
        return http_too_large(transfer, transfer->max_response, "max_response");
    if (!transfer->streamed && expected <= HTTP_MAX_RESERVE &&
        !http_buffer_reserve(transfer->engine, &transfer->body, (size_t)expected))
        return http_no_memory(transfer);
    return SL_HTTP_GO_ON;
}

static int http_read_status(const char *line, size_t size)
{
    const char *space = memchr(line, ' ', size);
    if (!space || line + size - space < 4)
        return 0;
    int status = 0;
    for (int i = 1; i <= 3; i++) {
        if (space[i] < '0' || space[i] > '9')
            return 0;
        status = status * 10 + (space[i] - '0');
    }
    return status;
}

static enum sl_http_verdict http_end_head(sl_http_transfer *transfer)
{
    if (transfer->status / 100 == 1 && transfer->status != 101) {
        transfer->head.size = 0;
        transfer->has_length = transfer->is_packed = false;
        return SL_HTTP_GO_ON;
    }
    transfer->head_complete = true;
    transfer->state = SL_HTTP_BODY;
    transfer->last_activity = sl_now(transfer->engine->core);
    sl_http_limits_update(transfer);
    if (transfer->streamed && transfer->on_change)
        transfer->on_change(transfer);
    return SL_HTTP_GO_ON;
}

/** A line that continues the one before (RFC 9112, 5.2) becomes one with it, by a space. */
static bool http_unfold(sl_http_transfer *transfer, const char **line, size_t *size)
{
    sl_http_buffer *head = &transfer->head;
    while (head->size > 0 &&
           (head->data[head->size - 1] == '\n' || head->data[head->size - 1] == '\r'))
        head->size--;
    while (*size > 0 && (**line == ' ' || **line == '\t')) {
        ++*line;
        --*size;
    }
    return http_buffer_append(transfer->engine, head, " ", 1);
}

static enum sl_http_verdict http_limit_used_up(sl_http_transfer *transfer)
{
    sl_http_failure_set(transfer, SL_LIMIT_KIND, sl_http_phase(transfer), SL_LIMIT_TEXT);
    return SL_HTTP_ABORT;
}

enum sl_http_verdict sl_http_on_head(sl_http_transfer *transfer, const char *line, size_t size)
{
    sl_core *core = transfer->engine->core;
    if (transfer->head_complete)
        return SL_HTTP_GO_ON; /* a trailer */
    if (transfer->state != SL_HTTP_HEAD) {
        transfer->state = SL_HTTP_HEAD;
        transfer->first_byte = sl_now(core);
    }
    if (transfer->head.size == 0)
        transfer->status = http_read_status(line, size);
    else if (size <= 2 && (line[0] == '\r' || line[0] == '\n'))
        return http_end_head(transfer);
    else if ((line[0] == ' ' || line[0] == '\t') && !http_unfold(transfer, &line, &size))
        return http_no_memory(transfer);
    if (!sl_count_bytes(core, size))
        return http_limit_used_up(transfer);
    if (transfer->head.size + size > HTTP_MAX_HEAD) {
        sl_http_failure_set(transfer, "ProtocolError", "head", "head of more than %d bytes",
                            HTTP_MAX_HEAD);
        transfer->failure.code = "HEAD_TOO_LARGE";
        return SL_HTTP_ABORT;
    }
    if (!http_buffer_append(transfer->engine, &transfer->head, line, size))
        return http_no_memory(transfer);
    if (transfer->decompress && size > 17 && strncasecmp(line, "content-encoding:", 17) == 0)
        transfer->is_packed = true;
    return http_expect_length(transfer, line, size);
}

enum sl_http_verdict sl_http_on_body(sl_http_transfer *transfer, const char *data, size_t size)
{
    sl_http_buffer *body = &transfer->body;
    size_t ahead = body->size - body->taken;
    if (transfer->streamed && !transfer->is_packed && ahead >= transfer->high_water) {
        transfer->paused = true;
        return SL_HTTP_PAUSE;
    }
    if (transfer->max_response && size > transfer->max_response - transfer->received)
        return http_too_large(transfer, transfer->max_response, "max_response");
    if (transfer->streamed && transfer->is_packed && ahead > HTTP_MAX_UNPACKED)
        return http_too_large(transfer, HTTP_MAX_UNPACKED, "decompressed at once");
    if (!sl_count_bytes(transfer->engine->core, size))
        return http_limit_used_up(transfer);
    if (!http_buffer_append(transfer->engine, body, data, size))
        return http_no_memory(transfer);
    transfer->received += size;
    transfer->last_activity = sl_now(transfer->engine->core);
    if (transfer->streamed && transfer->on_change)
        transfer->on_change(transfer);
    if (!transfer->streamed || !transfer->is_packed || ahead + size < transfer->high_water)
        return SL_HTTP_GO_ON;
    /* refused now, libcurl would copy all that it has decompressed at each resume */
    transfer->paused = true;
    return SL_HTTP_PAUSE_AFTER;
}

long sl_http_on_upload(sl_http_transfer *transfer, char *data, size_t size)
{
    sl_http_buffer *upload = &transfer->upload;
    size_t there = upload->size - upload->taken;
    if (there == 0) {
        if (transfer->upload_ended)
            return 0;
        transfer->upload_starved = true;
        return -1;
    }
    if (size > there)
        size = there;
    memcpy(data, upload->data + upload->taken, size);
    upload->taken += size;
    if (upload->taken == upload->size)
        upload->taken = upload->size = 0;
    transfer->last_activity = sl_now(transfer->engine->core);
    if (transfer->on_change)
        transfer->on_change(transfer);
    return (long)size;
}

void sl_http_on_end(sl_http_transfer *transfer)
{
    sl_http_finish(transfer, SL_HTTP_DONE);
}

void sl_http_on_failure(sl_http_transfer *transfer, const char *kind, const char *phase,
                        const char *message)
{
    sl_http_failure_set(transfer, kind, phase, "%s", message);
    sl_http_finish(transfer, SL_HTTP_FAILED);
}
