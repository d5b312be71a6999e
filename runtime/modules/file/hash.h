/* SPDX-License-Identifier: MIT */
/* XXH64: a fast checksum of 64 bits, against accidents and not against attackers. */
#ifndef SL_FILE_HASH_H
#define SL_FILE_HASH_H

#include <stddef.h>
#include <stdint.h>

/** A hash under way. */
typedef struct sl_hash {
    uint64_t lanes[4];
    uint64_t total; /* bytes so far */
    unsigned char rest[32];
    size_t held; /* bytes in rest */
} sl_hash;

void sl_hash_init(sl_hash *hash);
void sl_hash_add(sl_hash *hash, const void *bytes, size_t length);
/** The value so far; more may be added afterwards. */
uint64_t sl_hash_value(const sl_hash *hash);

#endif
