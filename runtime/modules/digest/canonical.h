/* SPDX-License-Identifier: MIT */
/*
 * The canonical binary form of a JSON value, as a digest takes it: one sequence of bytes for each
 * value, whatever the order of keys, and no two values with the same one. No Lua.
 *
 *     null, true, false   n  t  f
 *     a whole number that 64 bits hold, written with a point or without
 *                         i  zigzag of it, as a variable-length number (LEB128)
 *     any other number    d  the eight bytes of the double, the least significant first
 *     a string            s  its length in bytes (LEB128), its bytes
 *     an array            [  its elements  ]
 *     an object           {  its members: key (as a string), value; keys in byte order  }
 *
 * What is stored under digests of this form outlives the program: a change of it is a change of
 * SL_CANONICAL_VERSION.
 */
#ifndef SL_CANONICAL_H
#define SL_CANONICAL_H

#include "sha256.h"

#include <stdint.h>

enum {
    SL_CANONICAL_VERSION = 1,
    /** Bytes that are gathered before the digest takes them. */
    SL_CANONICAL_BLOCK = 1024,
};

typedef struct sl_canonical {
    sl_sha256 *sha;
    size_t used;
    /** A digest has failed: the result is worth nothing. */
    bool failed;
    unsigned char block[SL_CANONICAL_BLOCK];
} sl_canonical;

void sl_canonical_start(sl_canonical *out, sl_sha256 *sha);
/** One byte: n t f [ ] { }. */
void sl_canonical_mark(sl_canonical *out, char mark);
void sl_canonical_integer(sl_canonical *out, int64_t value);
/** The value is finite. */
void sl_canonical_number(sl_canonical *out, double value);
void sl_canonical_string(sl_canonical *out, const char *text, size_t size);
/** False when anything has failed. */
bool sl_canonical_finish(sl_canonical *out, unsigned char digest[SL_SHA256_SIZE]);

#endif
