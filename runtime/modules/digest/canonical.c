/* SPDX-License-Identifier: MIT */
/* Writes the canonical form into a digest, a block at a time. */
#include "canonical.h"

#include <string.h>

enum { CANONICAL_NUMBER = 11 /* bytes of a mark and a variable-length number */ };

#define CANONICAL_2_63 9223372036854775808.0

static void canonical_flush(sl_canonical *out)
{
    if (!sl_sha256_add(out->sha, out->block, out->used))
        out->failed = true;
    out->used = 0;
}

/* Room for at most CANONICAL_NUMBER bytes. */
static inline unsigned char *canonical_room(sl_canonical *out)
{
    if (sizeof out->block - out->used < CANONICAL_NUMBER)
        canonical_flush(out);
    return out->block + out->used;
}

static inline unsigned char *canonical_count(unsigned char *p, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *p++ = (unsigned char)(value | 0x80);
    *p++ = (unsigned char)value;
    return p;
}

static void canonical_bytes(sl_canonical *out, const char *bytes, size_t size)
{
    if (size > sizeof out->block - out->used) {
        canonical_flush(out);
        if (size > sizeof out->block) {
            if (!sl_sha256_add(out->sha, bytes, size))
                out->failed = true;
            return;
        }
    }
    memcpy(out->block + out->used, bytes, size);
    out->used += size;
}

void sl_canonical_start(sl_canonical *out, sl_sha256 *sha)
{
    out->sha = sha;
    out->used = 0;
    out->failed = !sl_sha256_start(sha);
}

void sl_canonical_mark(sl_canonical *out, char mark)
{
    *canonical_room(out) = (unsigned char)mark;
    out->used++;
}

void sl_canonical_integer(sl_canonical *out, int64_t value)
{
    unsigned char *p = canonical_room(out);
    *p++ = 'i';
    p = canonical_count(p, (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0));
    out->used = (size_t)(p - out->block);
}

void sl_canonical_number(sl_canonical *out, double value)
{
    unsigned char *p;
    uint64_t bits;
    if (value >= -CANONICAL_2_63 && value < CANONICAL_2_63 && (double)(int64_t)value == value) {
        sl_canonical_integer(out, (int64_t)value);
        return;
    }
    memcpy(&bits, &value, sizeof bits);
    p = canonical_room(out);
    *p++ = 'd';
    for (size_t i = 0; i < sizeof bits; i++)
        *p++ = (unsigned char)(bits >> (8 * i));
    out->used = (size_t)(p - out->block);
}

void sl_canonical_string(sl_canonical *out, const char *text, size_t size)
{
    unsigned char *p = canonical_room(out);
    *p++ = 's';
    p = canonical_count(p, size);
    out->used = (size_t)(p - out->block);
    canonical_bytes(out, text, size);
}

bool sl_canonical_finish(sl_canonical *out, unsigned char digest[SL_SHA256_SIZE])
{
    canonical_flush(out);
    return sl_sha256_finish(out->sha, digest) && !out->failed;
}
