/* SPDX-License-Identifier: MIT */
/* JSON strings: finding their end, resolving escapes, writing escapes. */
#include "plain.h"

#define JSON_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */
#define JSON_CUT "the text ends inside a string"

/* Over valid sequences of UTF-8: to the first byte that is below 0x80, or begins no sequence. */
static const char *json_skip_utf8(const char *p, const char *end)
{
    while (p < end) {
        unsigned char lead = (unsigned char)*p;
        int length;
        if (lead < 0x80)
            return p;
        if (lead > 0xE0 && lead < 0xED && end - p > 2 && (p[1] & 0xC0) == 0x80 &&
            (p[2] & 0xC0) == 0x80) {
            p += 3; /* most of the world's scripts, without the call below */
            continue;
        }
        length = sl_json_utf8_length(p, end);
        if (length < 0)
            return p;
        p += length;
    }
    return p;
}

const char *sl_json_scan_string(const char *p, const char *end)
{
    for (;;) {
        while (SL_JSON_WORDS && end - p >= 8) {
            uint64_t marks = sl_json_special(sl_json_load(p));
            if (marks != 0) {
                p += __builtin_ctzll(marks) >> 3;
                break;
            }
            p += 8;
        }
        while (p < end && sl_json_is_plain(*p))
            p++;
        if (p == end || (unsigned char)*p < 0x80)
            return p;
        p = json_skip_utf8(p, end);
        if ((unsigned char)*p >= 0x80)
            return p;
    }
}

/* ---- reading ---- */

static bool json_append(sl_json_buffer *out, const char *bytes, size_t length)
{
    char *room = sl_json_reserve(out, length);
    if (room == NULL)
        return false;
    memcpy(room, bytes, length);
    out->length += length;
    return true;
}

static const char *json_string_fault(sl_json_fault *fault, const char *at, const char *message)
{
    fault->at = at;
    fault->message = message;
    return NULL;
}

/* Four hexadecimal digits; -1 when they are not, with `*at` where. */
static int json_read_hex(const char *p, const char **at)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i], letter = (char)(c | 0x20);
        if (sl_json_is_digit(c))
            value = value * 16 + (c - '0');
        else if (letter >= 'a' && letter <= 'f')
            value = value * 16 + (letter - 'a' + 10);
        else {
            *at = p + i;
            return -1;
        }
    }
    return value;
}

static int json_put_utf8(char *out, int code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

/* p is behind \u; returns the byte behind the escape, or behind the pair of them */
static const char *json_read_unicode(char *out, int *size, const char *p, sl_json_fault *fault)
{
    const char *at;
    int code = json_read_hex(p, &at), second;
    if (code < 0)
        return json_string_fault(fault, at, "four hexadecimal digits must follow \\u");
    p += 4;
    if (code >= 0xD800 && code <= 0xDFFF) {
        second = code < 0xDC00 && p[0] == '\\' && p[1] == 'u' ? json_read_hex(p + 2, &at) : -1;
        if (second >= 0xDC00 && second <= 0xDFFF) {
            code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00);
            p += 6;
        } else {
            code = 0xFFFD;
        }
    }
    *size = json_put_utf8(out, code);
    return p;
}

/* p is at the backslash */
static const char *json_read_escape(sl_json_buffer *out, const char *p, const char *end,
                                    sl_json_fault *fault)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char bytes[4];
    int size = 1;
    const char *name = p[1] != '\0' ? strchr(names, p[1]) : NULL;
    if (p[1] == 'u') {
        p = json_read_unicode(bytes, &size, p + 2, fault);
        if (p == NULL)
            return NULL;
    } else if (name != NULL) {
        bytes[0] = values[name - names];
        p += 2;
    } else {
        return json_string_fault(fault, p + 1, p + 1 == end ? JSON_CUT : "not an escape sequence");
    }
    if (!json_append(out, bytes, (size_t)size))
        return json_string_fault(fault, p, "not enough memory");
    return p;
}

/* p is at what no string may hold; behind it, when that can be replaced */
static const char *json_read_special(sl_json_buffer *out, const char *p, const char *end,
                                     bool replace, sl_json_fault *fault)
{
    if (p == end)
        return json_string_fault(fault, p, JSON_CUT);
    if ((unsigned char)*p < 0x20)
        return json_string_fault(fault, p, "a control character in a string must be escaped");
    if (!replace)
        return json_string_fault(fault, p, "invalid UTF-8");
    if (!json_append(out, JSON_REPLACEMENT, 3))
        return json_string_fault(fault, p, "not enough memory");
    return p - sl_json_utf8_length(p, end);
}

const char *sl_json_read_string(sl_json_buffer *out, const char *p, const char *stop,
                                const char *end, bool replace, sl_json_fault *fault)
{
    for (;; stop = sl_json_scan_string(p, end)) {
        if (!json_append(out, p, (size_t)(stop - p)))
            return json_string_fault(fault, p, "not enough memory");
        p = stop;
        if (*p == '"')
            return p;
        if (*p == '\\')
            p = json_read_escape(out, p, end, fault);
        else
            p = json_read_special(out, p, end, replace, fault);
        if (p == NULL)
            return NULL;
    }
}

/* ---- writing ---- */

/* The escape of a byte that needs one; `out` has room for six. */
static char *json_put_escape(char *out, unsigned char byte)
{
    static const char digits[] = "0123456789abcdef", names[] = "btn?fr"; /* from 8 on; no \v */
    *out++ = '\\';
    if (byte == '"' || byte == '\\') {
        *out++ = (char)byte;
    } else if (byte >= 8 && byte <= 13 && byte != 11) {
        *out++ = names[byte - 8];
    } else {
        memcpy(out, "u00", 3);
        out[3] = digits[byte >> 4];
        out[4] = digits[byte & 15];
        out += 5;
    }
    return out;
}

static inline char *json_copy_plain(char *out, const char **p, const char *end)
{
    const char *s = *p;
    if (SL_JSON_WORDS && end - s >= 8)
        return sl_json_copy_words(out, p, end);
    while (s < end && sl_json_is_plain(*s))
        *out++ = *s++;
    *p = s;
    return out;
}

/* What is at *p and not plain; `out` has room for the rest and six more. NULL: refused. */
static char *json_put_special(char *out, const char **p, const char *end, bool strict)
{
    const char *stop;
    if ((unsigned char)**p < 0x80)
        return json_put_escape(out, (unsigned char)*(*p)++);
    stop = sl_json_scan_string(*p, end);
    if (stop > *p) {
        size_t length = (size_t)(stop - *p);
        memcpy(out, *p, length);
        *p = stop;
        return out + length;
    }
    if (strict)
        return NULL;
    memcpy(out, JSON_REPLACEMENT, 3);
    *p -= sl_json_utf8_length(*p, end);
    return out + 3;
}

sl_json_status sl_json_write_string(sl_json_buffer *out, const char *text, size_t length,
                                    bool strict)
{
    const char *p = text, *end = text + length;
    char *room = sl_json_reserve(out, length + 2);
    if (room == NULL)
        return SL_JSON_NO_MEMORY;
    *room++ = '"';
    for (;;) {
        room = json_copy_plain(room, &p, end);
        if (p == end)
            break;
        out->length = (size_t)(room - out->data);
        room = sl_json_reserve(out, (size_t)(end - p) + 8); /* the rest plain, and one escape */
        if (room == NULL)
            return SL_JSON_NO_MEMORY;
        room = json_put_special(room, &p, end, strict);
        if (room == NULL)
            return SL_JSON_BAD_UTF8;
    }
    *room++ = '"';
    out->length = (size_t)(room - out->data);
    return SL_JSON_OK;
}
