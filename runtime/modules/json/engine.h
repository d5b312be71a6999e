/* SPDX-License-Identifier: MIT */
/*
 * The parts of the JSON codec that know nothing of Lua: a growing buffer, numbers, strings.
 *
 * Every function that reads text expects a NUL byte at `end` (Lua strings have one), so that the
 * inner loops need no bounds check for each byte. No function keeps state of its own.
 */
#ifndef SL_JSON_ENGINE_H
#define SL_JSON_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- the buffer ---- */

typedef struct sl_json_buffer sl_json_buffer;

/** As lua_Alloc: size 0 frees, and a failure returns NULL and leaves the old block. */
typedef void *(*sl_json_alloc)(void *user, void *block, size_t old_size, size_t new_size);

struct sl_json_buffer {
    /** What was written; not NUL-terminated. */
    char *data;
    /** In bytes. */
    size_t length, capacity;
    /** Makes room for at least `capacity` bytes; false without memory. It may not return. */
    bool (*grow)(sl_json_buffer *buffer, size_t capacity);
    /** For buffers of sl_json_buffer_init. */
    sl_json_alloc alloc;
    void *user;
};

/** An empty buffer that takes its memory from `alloc`. Cannot fail. */
void sl_json_buffer_init(sl_json_buffer *buffer, sl_json_alloc alloc, void *user);
/** Frees the memory; idempotent. Only for buffers of sl_json_buffer_init. */
void sl_json_buffer_fini(sl_json_buffer *buffer);
/** The slow half of sl_json_reserve. */
char *sl_json_buffer_extend(sl_json_buffer *buffer, size_t extra);

/** Room for `extra` bytes behind what is written; NULL without memory. */
static inline char *sl_json_reserve(sl_json_buffer *buffer, size_t extra)
{
    if (buffer->capacity - buffer->length >= extra)
        return buffer->data + buffer->length;
    return sl_json_buffer_extend(buffer, extra);
}

/* ---- numbers ---- */

static inline bool sl_json_is_digit(char byte)
{
    return (unsigned char)(byte - '0') < 10;
}

/** The leading 128 bits of 10^k, rounded down, the top bit set. */
typedef struct sl_json_power {
    uint64_t high, low;
} sl_json_power;

enum {
    SL_JSON_POWER_MIN = -342,
    SL_JSON_POWER_MAX = 324,
    /** The longest text that sl_json_write_double or sl_json_write_integer makes, and some. */
    SL_JSON_NUMBER_SIZE = 32,
};

/** 10^k for SL_JSON_POWER_MIN <= k <= SL_JSON_POWER_MAX. */
sl_json_power sl_json_power10(int k);

/** Writes the integer at `out` (SL_JSON_NUMBER_SIZE bytes); returns the end. */
char *sl_json_write_integer(char *out, int64_t value);
/**
 * Writes the shortest text that reads back as the same double, always with a point or an exponent.
 * The value must be finite. Returns the end.
 */
char *sl_json_write_double(char *out, double value);

typedef enum sl_json_kind {
    SL_JSON_INTEGER,
    SL_JSON_FLOAT,
    /** Not a number by RFC 8259; the returned pointer is at the offending byte. */
    SL_JSON_BAD_NUMBER,
    /** Its magnitude is beyond the largest double. */
    SL_JSON_OUT_OF_RANGE,
} sl_json_kind;

typedef struct sl_json_number {
    sl_json_kind kind;
    int64_t integer;
    double value;
} sl_json_number;

/** Reads the number that starts at `p` with a digit or a minus; returns the byte behind it. */
const char *sl_json_read_number(const char *p, sl_json_number *number);

/* ---- strings ---- */

/**
 * The length (2 to 4) of the UTF-8 sequence at `p`, whose first byte is 0x80 or above; where it is
 * not valid, minus the length of the part that one U+FFFD replaces (Unicode, "maximal subpart").
 */
int sl_json_utf8_length(const char *p, const char *end);

/** The first byte from `p` on that is not plain: quote, backslash, control, bad UTF-8, or end. */
const char *sl_json_scan_string(const char *p, const char *end);

/** What went wrong in a text, and where. The message is static. */
typedef struct sl_json_fault {
    const char *message;
    const char *at;
} sl_json_fault;

/**
 * Appends the string that begins at `p` (behind its opening quote) with its escapes resolved, and
 * returns the closing quote; NULL and `fault` set where the text is wrong. A surrogate without its
 * partner becomes U+FFFD. `replace`: so does invalid UTF-8, which is an error otherwise. `stop` is
 * what sl_json_scan_string(p, end) returns.
 */
const char *sl_json_read_string(sl_json_buffer *out, const char *p, const char *stop,
                                const char *end, bool replace, sl_json_fault *fault);

typedef enum sl_json_status {
    SL_JSON_OK = 0,
    SL_JSON_NO_MEMORY = -1,
    SL_JSON_BAD_UTF8 = -2,
} sl_json_status;

/**
 * Appends the string with its quotes and escapes. Invalid UTF-8 becomes U+FFFD, or, when `strict`,
 * ends the call with SL_JSON_BAD_UTF8.
 */
sl_json_status sl_json_write_string(sl_json_buffer *out, const char *text, size_t length,
                                    bool strict);

#endif
