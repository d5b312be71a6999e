/* SPDX-License-Identifier: MIT */
/* The bytes of a string that need no escape, eight at a time: finding them, copying them. */
#ifndef SL_JSON_PLAIN_H
#define SL_JSON_PLAIN_H

#include "engine.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
enum { SL_JSON_WORDS = 1 };
#else
enum { SL_JSON_WORDS = 0 };
#endif

static inline uint64_t sl_json_load(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/**
 * The top bit of each byte that is not plain in a string: below 0x20, a quote, a backslash, or from
 * 0x80 up. Only the lowest one is for use, and only on little-endian machines: a borrow runs
 * upwards from a byte that is found. Bytes from 0x80 up borrow nothing and are marked by
 * themselves.
 */
static inline uint64_t sl_json_special(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101U;
    uint64_t control = word - ones * 0x20;
    uint64_t quote = (word ^ (ones * '"')) - ones;
    uint64_t backslash = (word ^ (ones * '\\')) - ones;
    return (word | control | quote | backslash) & (ones * 0x80);
}

static inline bool sl_json_is_plain(char byte)
{
    unsigned char c = (unsigned char)byte;
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/** Copies the plain bytes at *p, of at least eight up to `end`; `out` has room for all of them. */
static inline char *sl_json_copy_words(char *out, const char **p, const char *end)
{
    const char *s = *p;
    uint64_t word, marks;
    for (; end - s >= 8; s += 8, out += 8) {
        word = sl_json_load(s);
        marks = sl_json_special(word);
        memcpy(out, &word, 8);
        if (marks != 0)
            goto found;
    }
    if (s == end)
        goto done;
    /* the last bytes once more with those before them: a word is cheaper than a loop */
    out -= 8 - (end - s);
    s = end - 8;
    word = sl_json_load(s);
    marks = sl_json_special(word);
    memcpy(out, &word, 8);
    if (marks != 0)
        goto found;
    s += 8;
    out += 8;
    goto done;
found:
    s += __builtin_ctzll(marks) >> 3;
    out += __builtin_ctzll(marks) >> 3;
done:
    *p = s;
    return out;
}

/** Four to seven bytes, as two words of four that overlap. */
static inline char *sl_json_write_few(char *out, const char *text, size_t length)
{
    uint32_t head, tail;
    memcpy(&head, text, 4);
    memcpy(&tail, text + length - 4, 4);
    if (sl_json_special(head | (uint64_t)tail << 32) != 0)
        return NULL;
    memcpy(out, &head, 4);
    memcpy(out + length - 4, &tail, 4);
    return out + length;
}

/**
 * Writes a short string with its quotes at `out`, which has room for length + 2 bytes; returns the
 * end. NULL when something in it needs more than copying: that is for sl_json_write_string.
 */
static inline char *sl_json_write_plain(char *out, const char *text, size_t length)
{
    const char *p = text, *end = text + length;
    *out++ = '"';
    if (SL_JSON_WORDS && length >= 8) {
        out = sl_json_copy_words(out, &p, end);
    } else if (length >= 4) {
        out = sl_json_write_few(out, text, length);
        if (out == NULL)
            return NULL;
        p = end;
    } else {
        while (p < end && sl_json_is_plain(*p))
            *out++ = *p++;
    }
    if (p != end)
        return NULL;
    *out++ = '"';
    return out;
}

#endif
