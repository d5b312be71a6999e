/* SPDX-License-Identifier: MIT */
/* The head of a request: the strict scan of its bytes, llhttp, and what the fields mean. */
#include "head.h"

#include <llhttp.h>
#include <string.h>
#include <strings.h>

enum {
    METHOD_MAX = 32,
    VERSION_LENGTH = 8,
    REQUEST_ID_MAX = 128,
    /* 10^18 - 1 bytes; a longer number is no honest length and could overflow. */
    LENGTH_DIGITS_MAX = 18,
};

/* ---- bytes ---- */

bool sl_head_is_token(unsigned char byte)
{
    /* A bit for each of the first 128 bytes: letters, digits and !#$%&'*+-.^_`|~ */
    static const uint32_t tokens[4] = {0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff};
    return byte < 128 && (tokens[byte >> 5] >> (byte & 31) & 1);
}

bool sl_head_is_value(unsigned char byte)
{
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
}

static bool is_target(unsigned char byte)
{
    return byte > 0x20 && byte < 0x7f;
}

/* ---- the scan ---- */

enum scan_state {
    SCAN_START,
    SCAN_START_LF,
    SCAN_METHOD,
    SCAN_TARGET,
    SCAN_VERSION,
    SCAN_LINE_LF,
    SCAN_FIELD,
    SCAN_NAME,
    SCAN_VALUE,
    SCAN_END_LF,
};

static int scan_version(const char *version, size_t length)
{
    if (length != VERSION_LENGTH || memcmp(version, "HTTP/", 5) != 0 || version[6] != '.')
        return -400;
    if (version[5] < '0' || version[5] > '9' || version[7] < '0' || version[7] > '9')
        return -400;
    bool known = version[5] == '1' && version[7] <= '1';
    return known ? 0 : -505;
}

/** Ends a part of the request line at a space; 0, or minus a status. */
static int scan_space(sl_head_scan *scan)
{
    if (scan->position == scan->part)
        return -400;
    scan->state = scan->state == SCAN_METHOD ? SCAN_TARGET : SCAN_VERSION;
    scan->part = scan->position + 1;
    return 0;
}

static int scan_request_line(sl_head_scan *scan, const char *bytes)
{
    unsigned char byte = (unsigned char)bytes[scan->position];
    size_t length = scan->position - scan->part;
    switch (scan->state) {
    case SCAN_METHOD:
        if (byte == ' ')
            return scan_space(scan);
        return sl_head_is_token(byte) && length < METHOD_MAX ? 0 : -400;
    case SCAN_TARGET:
        if (byte == ' ')
            return scan_space(scan);
        if (!is_target(byte))
            return -400;
        return length < SL_TARGET_MAX ? 0 : -414;
    default: /* SCAN_VERSION */
        if (byte == '\r') {
            scan->state = SCAN_LINE_LF;
            return scan_version(bytes + scan->part, length);
        }
        return is_target(byte) && length < VERSION_LENGTH ? 0 : -400;
    }
}

static int scan_fields(sl_head_scan *scan, unsigned char byte)
{
    switch (scan->state) {
    case SCAN_LINE_LF:
        scan->state = SCAN_FIELD;
        return byte == '\n' ? 0 : -400;
    case SCAN_FIELD:
        if (byte == '\r') {
            scan->state = SCAN_END_LF;
            return 0;
        }
        scan->state = SCAN_NAME;
        if (++scan->fields > SL_FIELDS_MAX)
            return -431;
        return sl_head_is_token(byte) ? 0 : -400;
    case SCAN_NAME:
        if (byte == ':') {
            scan->state = SCAN_VALUE;
            return 0;
        }
        return sl_head_is_token(byte) ? 0 : -400;
    default: /* SCAN_VALUE */
        if (byte == '\r') {
            scan->state = SCAN_LINE_LF;
            return 0;
        }
        return sl_head_is_value(byte) ? 0 : -400;
    }
}

static int scan_start(sl_head_scan *scan, unsigned char byte)
{
    if (scan->state == SCAN_START_LF) {
        if (byte != '\n' || ++scan->blank > 1)
            return -400;
        scan->state = SCAN_START;
        scan->start = scan->position + 1;
        return 0;
    }
    if (byte == '\r') {
        scan->state = SCAN_START_LF;
        return 0;
    }
    scan->state = SCAN_METHOD;
    scan->part = scan->start;
    return sl_head_is_token(byte) ? 0 : -400;
}

/** Over a run of bytes of a value, which most of a head is. */
static void scan_skip_value(sl_head_scan *scan, const char *bytes, size_t length)
{
    while (scan->position < length && sl_head_is_value((unsigned char)bytes[scan->position]))
        scan->position++;
}

static int scan_byte(sl_head_scan *scan, const char *bytes)
{
    unsigned char byte = (unsigned char)bytes[scan->position];
    if (scan->state <= SCAN_START_LF)
        return scan_start(scan, byte);
    if (scan->state <= SCAN_VERSION)
        return scan_request_line(scan, bytes);
    if (scan->state != SCAN_END_LF)
        return scan_fields(scan, byte);
    return byte == '\n' ? 1 : -400;
}

int sl_head_scan_run(sl_head_scan *scan, const char *bytes, size_t length)
{
    size_t limit = length < SL_HEAD_MAX ? length : SL_HEAD_MAX;
    while (scan->position < limit) {
        if (scan->state == SCAN_VALUE) {
            scan_skip_value(scan, bytes, limit);
            if (scan->position == limit)
                break;
        }
        int result = scan_byte(scan, bytes);
        if (result < 0)
            return result;
        scan->position++;
        if (result > 0)
            return (int)scan->position;
    }
    return length >= SL_HEAD_MAX ? -431 : 0;
}

/* ---- llhttp ---- */

/** What the callbacks of llhttp write to. */
struct head_split {
    sl_head *head;
    const char *bytes;
    bool in_name;
};

static sl_span span_of(const struct head_split *split, const char *at, size_t length)
{
    return (sl_span){(uint16_t)(at - split->bytes), (uint16_t)length};
}

/** A span of llhttp may come in pieces that touch. */
static void span_extend(const struct head_split *split, sl_span *span, const char *at,
                        size_t length)
{
    if (span->length == 0)
        *span = span_of(split, at, length);
    else
        span->length = (uint16_t)(span->length + length);
}

static int on_head_target(llhttp_t *parser, const char *at, size_t length)
{
    struct head_split *split = parser->data;
    span_extend(split, &split->head->target, at, length);
    return 0;
}

static int on_head_name(llhttp_t *parser, const char *at, size_t length)
{
    struct head_split *split = parser->data;
    sl_head *head = split->head;
    if (!split->in_name) {
        if (head->count == SL_FIELDS_MAX)
            return HPE_USER;
        memset(&head->fields[head->count], 0, sizeof head->fields[0]);
        head->count++;
        split->in_name = true;
    }
    span_extend(split, &head->fields[head->count - 1].name, at, length);
    return 0;
}

static int on_head_value(llhttp_t *parser, const char *at, size_t length)
{
    struct head_split *split = parser->data;
    split->in_name = false;
    if (split->head->count == 0)
        return HPE_USER;
    span_extend(split, &split->head->fields[split->head->count - 1].value, at, length);
    return 0;
}

static int on_head_name_complete(llhttp_t *parser)
{
    struct head_split *split = parser->data;
    split->in_name = false;
    return 0;
}

static int on_head_complete(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED;
}

static int head_split_run(sl_head *head, const char *bytes, size_t length)
{
    static const llhttp_settings_t settings = {
        .on_url = on_head_target,
        .on_header_field = on_head_name,
        .on_header_value = on_head_value,
        .on_header_field_complete = on_head_name_complete,
        .on_headers_complete = on_head_complete,
    };
    struct head_split split = {.head = head, .bytes = bytes};
    llhttp_t parser;
    llhttp_init(&parser, HTTP_REQUEST, &settings);
    parser.data = &split;
    llhttp_errno_t error = llhttp_execute(&parser, bytes, length);
    if (error == HPE_INVALID_METHOD)
        return 501;
    if (error != HPE_PAUSED)
        return 400;
    if (parser.method == HTTP_CONNECT)
        return 501;
    head->method = llhttp_method_name(parser.method);
    head->is_head = parser.method == HTTP_HEAD;
    head->minor = llhttp_get_http_minor(&parser);
    return 0;
}

/* ---- what the fields mean ---- */

/** What is seen while the fields are gone through. */
struct head_seen {
    unsigned hosts, lengths, encodings, ids;
    bool close, keep_alive;
};

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

static void trim(const char *bytes, sl_span *span)
{
    while (span->length && is_blank(bytes[span->at + span->length - 1]))
        span->length--;
    while (span->length && is_blank(bytes[span->at])) {
        span->at++;
        span->length--;
    }
}

static bool equals(const char *value, size_t length, const char *text)
{
    return strlen(text) == length && strncasecmp(value, text, length) == 0;
}

static int read_length(sl_head *head, const char *value, size_t length)
{
    if (length == 0 || length > LENGTH_DIGITS_MAX)
        return 400;
    head->content_length = 0;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return 400;
        head->content_length = head->content_length * 10 + (uint64_t)(value[i] - '0');
    }
    return 0;
}

/** "chunked" alone. Another coding before it is 501, another one after it 400 (RFC 9112, 6). */
static int read_encoding(sl_head *head, const char *value, size_t length)
{
    head->chunked = equals(value, length, "chunked");
    if (head->chunked)
        return 0;
    bool last = length > 8 && strchr(" \t,", value[length - 8]) != NULL &&
                equals(value + length - 7, 7, "chunked");
    return last ? 501 : 400;
}

static void read_connection(struct head_seen *seen, const char *value, size_t length)
{
    for (size_t at = 0; at < length;) {
        size_t end = at;
        while (end < length && sl_head_is_token((unsigned char)value[end]))
            end++;
        seen->close = seen->close || equals(value + at, end - at, "close");
        seen->keep_alive = seen->keep_alive || equals(value + at, end - at, "keep-alive");
        at = end + 1;
    }
}

static int read_host(const char *value, size_t length)
{
    /* A bit for each byte that may not stand there: up to the space, "#/<>?@\\^`{|} and DEL. */
    static const uint32_t bad[4] = {0xffffffff, 0xd000800d, 0x50000001, 0xb8000001};
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)value[i];
        if (byte > 127 || bad[byte >> 5] >> (byte & 31) & 1)
            return 400;
    }
    return 0;
}

static bool is_request_id(const char *value, size_t length)
{
    if (length == 0 || length > REQUEST_ID_MAX)
        return false;
    for (size_t i = 0; i < length; i++) {
        bool plain = sl_head_is_token((unsigned char)value[i]) && !strchr("!#$%&'*+^`|~", value[i]);
        if (!plain)
            return false;
    }
    return true;
}

static int read_expect(sl_head *head, const char *value, size_t length)
{
    if (head->minor == 0)
        return 0;
    head->expects_continue = equals(value, length, "100-continue");
    return head->expects_continue ? 0 : 417;
}

static void read_request_id(sl_head *head, struct head_seen *seen, const char *bytes, sl_span span)
{
    bool usable = seen->ids++ == 0 && is_request_id(bytes + span.at, span.length);
    head->request_id = usable ? span : (sl_span){0};
}

/** The names that matter all differ in length. */
static int read_field(sl_head *head, struct head_seen *seen, const char *bytes, unsigned index)
{
    static const char *const names[] = {
        [4] = "host",          [6] = "expect",          [10] = "connection",
        [12] = "x-request-id", [14] = "content-length", [17] = "transfer-encoding",
    };
    sl_span name = head->fields[index].name, span = head->fields[index].value;
    const char *value = bytes + span.at;
    size_t length = span.length;
    if (name.length >= sizeof names / sizeof *names || !names[name.length] ||
        strncasecmp(bytes + name.at, names[name.length], name.length) != 0)
        return 0;
    switch (name.length) {
    case 4:
        return seen->hosts++ ? 400 : read_host(value, length);
    case 6:
        return read_expect(head, value, length);
    case 10:
        read_connection(seen, value, length);
        return 0;
    case 12:
        read_request_id(head, seen, bytes, span);
        return 0;
    case 14:
        return seen->lengths++ ? 400 : read_length(head, value, length);
    default:
        return seen->encodings++ ? 400 : read_encoding(head, value, length);
    }
}

/** Origin form, absolute form, or "*" for OPTIONS. A fragment has no place on the wire. */
static int check_target(const sl_head *head, const char *bytes)
{
    const char *target = bytes + head->target.at;
    size_t length = head->target.length;
    if (length == 0 || memchr(target, '#', length))
        return 400;
    if (target[0] == '/')
        return 0;
    if (length == 1 && target[0] == '*')
        return strcmp(head->method, "OPTIONS") == 0 ? 0 : 400;
    bool absolute = (length > 7 && strncasecmp(target, "http://", 7) == 0) ||
                    (length > 8 && strncasecmp(target, "https://", 8) == 0);
    return absolute ? 0 : 400;
}

int sl_head_parse(sl_head *head, sl_field *fields, const char *bytes, size_t length,
                  unsigned counted)
{
    struct head_seen seen = {0};
    memset(head, 0, sizeof *head);
    head->fields = fields;
    int status = head_split_run(head, bytes, length);
    if (status == 0)
        status = check_target(head, bytes);
    /* Two readers that see different fields are what a smuggler looks for. */
    if (status == 0 && head->count != counted)
        status = 400;
    for (unsigned i = 0; status == 0 && i < head->count; i++) {
        trim(bytes, &head->fields[i].value);
        status = read_field(head, &seen, bytes, i);
    }
    if (status)
        return status;
    if (head->minor == 1 && seen.hosts == 0)
        return 400;
    if (seen.encodings && (seen.lengths || head->minor == 0))
        return 400;
    head->keep_alive = head->minor == 1 ? !seen.close : seen.keep_alive && !seen.close;
    return 0;
}
