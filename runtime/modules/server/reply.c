/* SPDX-License-Identifier: MIT */
/* The answer as bytes: status line, fields, framing; and the answers that need no handler. */
#include "connection.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* ---- words ---- */

static const struct {
    int status;
    const char *reason, *kind, *message;
} reply_texts[] = {
    {200, "OK", NULL, NULL},
    {201, "Created", NULL, NULL},
    {202, "Accepted", NULL, NULL},
    {204, "No Content", NULL, NULL},
    {206, "Partial Content", NULL, NULL},
    {301, "Moved Permanently", NULL, NULL},
    {302, "Found", NULL, NULL},
    {303, "See Other", NULL, NULL},
    {304, "Not Modified", NULL, NULL},
    {307, "Temporary Redirect", NULL, NULL},
    {308, "Permanent Redirect", NULL, NULL},
    {400, "Bad Request", "MalformedRequest", "this is no proper HTTP/1.1 request"},
    {401, "Unauthorized", NULL, NULL},
    {403, "Forbidden", NULL, NULL},
    {404, "Not Found", NULL, NULL},
    {405, "Method Not Allowed", NULL, NULL},
    {406, "Not Acceptable", NULL, NULL},
    {408, "Request Timeout", "RequestTimeout", "the request did not arrive in time"},
    {409, "Conflict", NULL, NULL},
    {410, "Gone", NULL, NULL},
    {411, "Length Required", NULL, NULL},
    {412, "Precondition Failed", NULL, NULL},
    {413, "Content Too Large", "PayloadTooLarge", "the request body is too large"},
    {414, "URI Too Long", "TargetTooLong", "the request target is longer than 8192 bytes"},
    {415, "Unsupported Media Type", NULL, NULL},
    {417, "Expectation Failed", "ExpectationFailed", "Expect can only be 100-continue"},
    {422, "Unprocessable Content", NULL, NULL},
    {429, "Too Many Requests", NULL, NULL},
    {431, "Request Header Fields Too Large", "HeadTooLarge",
     "the request head is larger than 32768 bytes or 100 fields"},
    {SL_NOT_TLS, "Bad Request", "MalformedRequest", "this port speaks TLS: use https"},
    {499, "Client Closed Request", NULL, NULL},
    {500, "Internal Server Error", NULL, NULL},
    {501, "Not Implemented", "NotImplemented", "this method or transfer coding is not supported"},
    {502, "Bad Gateway", NULL, NULL},
    {503, "Service Unavailable", "TemporarilyUnavailable", "the server is out of memory"},
    {504, "Gateway Timeout", NULL, NULL},
    {505, "HTTP Version Not Supported", "VersionNotSupported", "HTTP/1.0 and HTTP/1.1 are spoken"},
};

enum {
    REPLY_TEXTS = sizeof reply_texts / sizeof *reply_texts,
};

static const char *reason_of(int status)
{
    for (int i = 0; i < REPLY_TEXTS; i++) {
        if (reply_texts[i].status == status)
            return reply_texts[i].reason;
    }
    return "";
}

/** The Date field of this second, made once in it; not by strftime, which follows the locale. */
static const char *reply_date(sl_server *server)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t now = time(NULL);
    struct tm utc;
    if (server->date_second != now && gmtime_r(&now, &utc)) {
        server->date_second = now;
        snprintf(server->date, sizeof server->date, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                 days + 3 * utc.tm_wday, utc.tm_mday, months + 3 * utc.tm_mon,
                 (utc.tm_year + 1900) % 10000, utc.tm_hour, utc.tm_min, utc.tm_sec);
    }
    return server->date;
}

/* ---- answers without a handler ---- */

void sl_reply_refuse(sl_connection *c, int status, sl_refusal *outcome)
{
    char text[512];
    const char *kind = "MalformedRequest", *message = "";
    int wire_status = status == SL_NOT_TLS ? 400 : status;
    for (int i = 0; i < REPLY_TEXTS; i++) {
        if (reply_texts[i].status == status && reply_texts[i].kind) {
            kind = reply_texts[i].kind;
            message = reply_texts[i].message;
        }
    }
    static const char body[] = "{\"error\":{\"message\":\"%s\",\"type\":\"%s\"}}";
    sl_request_id_format(c->server->id_prefix, ++c->server->ids, outcome->id);
    int body_length = snprintf(NULL, 0, body, message, kind);
    int head_length =
        snprintf(text, sizeof text,
                 "HTTP/1.1 %d %s\r\nDate: %s\r\nConnection: close\r\n"
                 "Content-Type: application/json\r\nContent-Length: %d\r\n"
                 "X-Request-Id: %s\r\n\r\n",
                 wire_status, reason_of(status), reply_date(c->server), body_length, outcome->id);
    snprintf(text + head_length, sizeof text - (size_t)head_length, body, message, kind);
    outcome->status = wire_status;
    outcome->bytes = (size_t)body_length;
    c->state = SL_CONNECTION_FLUSH;
    c->discarded = 0;
    sl_connection_append(c, text, (size_t)head_length + (size_t)body_length);
    sl_connection_send(c);
}

/* ---- the head ---- */

/** Room at the end of the backlog, to be filled in at once. NULL when the connection is lost, which
 *  is then settled. */
static char *reply_extend(sl_exchange *x, size_t length)
{
    sl_connection *c = x->connection;
    if (!c)
        return NULL;
    char *at = sl_bytes_extend(x->core, &c->out, length);
    if (at)
        return at;
    sl_connection_kill(c);
    sl_connection_settle(c);
    return NULL;
}

static bool reply_append(sl_exchange *x, const void *data, size_t length)
{
    char *at = reply_extend(x, length);
    if (at)
        memcpy(at, data, length);
    return at != NULL;
}

/* These write at `at` and return what follows; snprintf would cost more than the rest of a head. */

static char *put(char *at, const char *text, size_t length)
{
    memcpy(at, text, length);
    return at + length;
}

static char *put_text(char *at, const char *text)
{
    return put(at, text, strlen(text));
}

static char *put_number(char *at, uint64_t number, unsigned base)
{
    char digits[24];
    size_t count = 0;
    do {
        digits[sizeof digits - ++count] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number);
    return put(at, digits + sizeof digits - count, count);
}

static char *put_field(char *at, const char *name, size_t name_length, const char *value,
                       size_t value_length)
{
    at = put(at, name, name_length);
    at = put(at, ": ", 2);
    at = put(at, value, value_length);
    return put(at, "\r\n", 2);
}

bool sl_exchange_begin(sl_exchange *x, int status)
{
    char line[96];
    if (!x->connection || x->started)
        return false;
    sl_exchange_unhold(x);
    if (x->begun)
        sl_exchange_rewind(x);
    x->begun = true;
    x->status = status;
    x->mark = sl_bytes_length(&x->connection->out);
    x->close = !x->head.keep_alive;
    x->has_date = x->has_type = x->has_id = false;
    x->bodyless = x->head.is_head || status == 204 || status == 304;
    /* No Content-Length of a body that nobody sees: RFC 9110, 8.6. */
    x->counted = status != 204 && status != 304;
    char *at = put_number(put_text(line, "HTTP/1.1 "), (unsigned)status, 10);
    at = put_text(put(at, " ", 1), reason_of(status));
    at = put(at, "\r\n", 2);
    return reply_append(x, line, (size_t)(at - line));
}

/** Fields that say how the answer is framed are ours. */
static bool is_framing(sl_exchange *x, const char *name, size_t length, const char *value,
                       size_t value_length)
{
    if (length == 10 && strncasecmp(name, "connection", 10) == 0) {
        x->close = x->close || (value_length == 5 && strncasecmp(value, "close", 5) == 0);
        return true;
    }
    return (length == 14 && strncasecmp(name, "content-length", 14) == 0) ||
           (length == 17 && strncasecmp(name, "transfer-encoding", 17) == 0) ||
           (length == 10 && strncasecmp(name, "keep-alive", 10) == 0);
}

static const char *check_field(const char *name, size_t name_length, const char *value,
                               size_t value_length)
{
    if (name_length == 0)
        return "the name of a header is empty";
    for (size_t i = 0; i < name_length; i++) {
        if (!sl_head_is_token((unsigned char)name[i]))
            return "the name of a header holds a character that may not stand there";
    }
    for (size_t i = 0; i < value_length; i++) {
        if (!sl_head_is_value((unsigned char)value[i]))
            return "the value of a header holds a line break or a control character";
    }
    return NULL;
}

const char *sl_exchange_field(sl_exchange *x, const char *name, size_t name_length,
                              const char *value, size_t value_length)
{
    const char *wrong = check_field(name, name_length, value, value_length);
    if (wrong || is_framing(x, name, name_length, value, value_length))
        return wrong;
    if (name_length == 4 && strncasecmp(name, "date", 4) == 0)
        x->has_date = true;
    if (name_length == 12 && strncasecmp(name, "content-type", 12) == 0)
        x->has_type = true;
    if (name_length == 12 && strncasecmp(name, "x-request-id", 12) == 0)
        x->has_id = true;
    /* a client that is gone is found out by the flush */
    char *at = reply_extend(x, name_length + value_length + 4);
    if (at)
        put_field(at, name, name_length, value, value_length);
    return NULL;
}

void sl_exchange_rewind(sl_exchange *x)
{
    if (x->connection && !x->started) {
        sl_bytes *out = &x->connection->out;
        out->end = out->start + x->mark;
        x->begun = false;
    }
}

/** What is left unread when the answer begins cannot be told from the next request later. */
static bool must_close(const sl_exchange *x)
{
    return x->close || !sl_body_ended(&x->body) || x->connection->server->stopping;
}

static char *put_framing(char *at, sl_exchange *x, int64_t length)
{
    x->chunked = length < 0 && x->head.minor == 1;
    x->left = length < 0 ? 0 : (uint64_t)length;
    if (length < 0 && !x->chunked && !x->bodyless)
        x->close = true;
    if (length >= 0 && x->counted) {
        at = put_number(put_text(at, "Content-Length: "), (uint64_t)length, 10);
        at = put(at, "\r\n", 2);
    } else if (x->chunked && !x->bodyless) {
        at = put_text(at, "Transfer-Encoding: chunked\r\n");
    }
    x->counted = length >= 0;
    return at;
}

void sl_exchange_end_head(sl_exchange *x, int64_t length)
{
    char lines[512], own[SL_REQUEST_ID_SIZE]; /* 128 of them for the client's id at most */
    size_t id_length;
    if (!x->connection)
        return;
    x->close = must_close(x);
    char *at = put_framing(lines, x, length);
    if (!x->has_id) {
        const char *id = sl_exchange_id(x, own, &id_length);
        at = put_field(at, "X-Request-Id", 12, id, id_length);
    }
    if (!x->has_date) {
        const char *date = reply_date(x->connection->server);
        at = put_field(at, "Date", 4, date, strlen(date));
    }
    if (x->close)
        at = put_text(at, "Connection: close\r\n");
    else if (x->head.minor == 0)
        at = put_text(at, "Connection: keep-alive\r\n");
    at = put(at, "\r\n", 2);
    (void)reply_append(x, lines, (size_t)(at - lines));
    x->started = true;
}

/* ---- the body ---- */

/** Room for so many bytes of the body, framed as the answer is; NULL where nothing is to be
 * written. */
static char *body_extend(sl_exchange *x, size_t length)
{
    x->written += length;
    x->written_at = sl_now(x->core);
    if (!x->chunked)
        return reply_extend(x, length);
    char line[24];
    char *end = put(put_number(line, length, 16), "\r\n", 2);
    size_t line_length = (size_t)(end - line);
    char *at = reply_extend(x, line_length + length + 2);
    if (!at)
        return NULL;
    at = put(at, line, line_length);
    put(at + length, "\r\n", 2);
    return at;
}

void sl_exchange_write_data(sl_exchange *x, const char *data, size_t length)
{
    static const char before[] = "data: ";
    enum { BEFORE = sizeof before - 1, AFTER = 2 };
    sl_exchange_release(x);
    x->at_line_start = true;
    char *at = x->bodyless ? NULL : body_extend(x, BEFORE + length + AFTER);
    if (at)
        put(put(put(at, before, BEFORE), data, length), "\n\n", AFTER);
}

const char *sl_exchange_write(sl_exchange *x, const char *bytes, size_t length)
{
    sl_exchange_release(x);
    if (!x->started)
        return "the answer has not begun";
    if (x->finished)
        return "the answer is finished";
    if (x->counted) {
        if (length > x->left)
            return "more than the length that was announced";
        x->left -= length;
    }
    if (length == 0 || x->bodyless)
        return NULL;
    x->at_line_start = bytes[length - 1] == '\n';
    char *at = body_extend(x, length);
    if (at)
        put(at, bytes, length);
    return NULL;
}

size_t sl_exchange_backlog(const sl_exchange *x)
{
    return x->connection ? sl_bytes_length(&x->connection->out) : 0;
}

bool sl_exchange_flush(sl_exchange *x)
{
    sl_connection *c = x->connection;
    if (c) {
        sl_connection_send(c);
        sl_connection_settle(c);
    }
    return x->connection != NULL;
}

void sl_exchange_finish(sl_exchange *x)
{
    sl_exchange_release(x);
    if (!x->connection || !x->started)
        return;
    if (x->counted && x->left && !x->bodyless) {
        sl_exchange_abort(x);
        return;
    }
    if (x->chunked && !x->bodyless && !reply_append(x, "0\r\n\r\n", 5))
        return;
    sl_connection *c = x->connection;
    x->finished = true;
    sl_connection_next(c, x->close);
    sl_connection_settle(c);
}
