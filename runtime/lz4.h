/* SPDX-License-Identifier: MIT */
/* Unpacks blocks of LZ4, which the build packs the Lua library with (tools/lz4.lua). */
#ifndef SL_LZ4_H
#define SL_LZ4_H

#include <stdbool.h>
#include <stddef.h>

/** Bytes that a block may reach back into, as if they stood before what it unpacks to. */
typedef struct sl_lz4_dictionary {
    const unsigned char *bytes;
    size_t size;
} sl_lz4_dictionary;

/** Whether `size` bytes were a block that fills `to` exactly. Whatever they are, nothing outside of
 * the three is touched. */
bool sl_lz4_unpack(const unsigned char *from, size_t size, const sl_lz4_dictionary *dictionary,
                   unsigned char *to, size_t to_size);

#endif
