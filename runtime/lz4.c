/* SPDX-License-Identifier: MIT */
/* The block format of LZ4: literals, and copies of what was unpacked before. */
#include "lz4.h"

#include <string.h>

enum {
    LZ4_SHORTEST = 4,
    /* A length in a token that goes on behind it. */
    LZ4_LONG = 15,
    /* Most copies are shorter: where there is room one of this size, which is two instructions, is
     * faster than one of the right size. */
    LZ4_WORD = 16,
};

typedef struct lz4_reader {
    const unsigned char *at, *end;
} lz4_reader;

/** Adds what follows a length of 15; false at the end. */
static bool lz4_read_length(lz4_reader *in, size_t *length)
{
    unsigned char byte = 255;
    if (*length != LZ4_LONG)
        return true;
    while (byte == 255) {
        if (in->at == in->end)
            return false;
        byte = *in->at++;
        *length += byte;
    }
    return true;
}

/** Copies what lies `offset` bytes back, of which `done` are unpacked; it may run into itself. */
static void lz4_copy(unsigned char *to, size_t to_size, size_t done,
                     const sl_lz4_dictionary *dictionary, size_t offset, size_t length)
{
    if (offset > done) {
        size_t before = offset - done, part = before < length ? before : length;
        memcpy(to + done, dictionary->bytes + dictionary->size - before, part);
        done += part;
        length -= part;
        if (length == 0)
            return;
    }
    if (offset >= LZ4_WORD && length <= LZ4_WORD && to_size - done >= LZ4_WORD) {
        memcpy(to + done, to + done - offset, LZ4_WORD);
        return;
    }
    if (offset >= length) {
        memcpy(to + done, to + done - offset, length);
        return;
    }
    for (; length > 0; length--, done++)
        to[done] = to[done - offset];
}

/** The offset of a match, and its length; false where there is none. */
static bool lz4_read_match(lz4_reader *in, size_t *offset, size_t *length)
{
    if (in->end - in->at < 2)
        return false;
    *offset = in->at[0] | (size_t)in->at[1] << 8;
    in->at += 2;
    if (*offset == 0 || !lz4_read_length(in, length))
        return false;
    *length += LZ4_SHORTEST;
    return true;
}

bool sl_lz4_unpack(const unsigned char *from, size_t size, const sl_lz4_dictionary *dictionary,
                   unsigned char *to, size_t to_size)
{
    lz4_reader in = {from, from + size};
    size_t done = 0, offset;
    while (in.at < in.end) {
        unsigned token = *in.at++;
        size_t literals = token >> 4, match = token & 15;
        if (!lz4_read_length(&in, &literals) || literals > (size_t)(in.end - in.at) ||
            literals > to_size - done)
            return false;
        if (literals <= LZ4_WORD && in.end - in.at >= LZ4_WORD && to_size - done >= LZ4_WORD)
            memcpy(to + done, in.at, LZ4_WORD);
        else
            memcpy(to + done, in.at, literals);
        in.at += literals;
        done += literals;
        if (in.at == in.end)
            return done == to_size;
        if (!lz4_read_match(&in, &offset, &match) || match > to_size - done ||
            (offset > done && offset - done > dictionary->size))
            return false;
        lz4_copy(to, to_size, done, dictionary, offset, match);
        done += match;
    }
    return false;
}
