/* SPDX-License-Identifier: MIT */
/* XXH64 as its author specifies it, with seed 0. */
#include "hash.h"

#include <string.h>

static const uint64_t HASH_PRIME_1 = 0x9E3779B185EBCA87U, HASH_PRIME_2 = 0xC2B2AE3D27D4EB4FU,
                      HASH_PRIME_3 = 0x165667B19E3779F9U, HASH_PRIME_4 = 0x85EBCA77C2B2AE63U,
                      HASH_PRIME_5 = 0x27D4EB2F165667C5U;

enum {
    HASH_STRIPE = 32,
};

static uint64_t hash_rotate(uint64_t value, int by)
{
    return (value << by) | (value >> (64 - by));
}

/* Little endian on every machine. */
static uint64_t hash_word(const unsigned char *at, int bytes)
{
    uint64_t word = 0;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(&word, at, (size_t)bytes);
#else
    for (int i = bytes; i-- > 0;)
        word = word << 8 | at[i];
#endif
    return word;
}

static uint64_t hash_round(uint64_t lane, uint64_t word)
{
    return hash_rotate(lane + word * HASH_PRIME_2, 31) * HASH_PRIME_1;
}

void sl_hash_init(sl_hash *hash)
{
    memset(hash, 0, sizeof *hash);
    hash->lanes[0] = HASH_PRIME_1 + HASH_PRIME_2;
    hash->lanes[1] = HASH_PRIME_2;
    hash->lanes[3] = 0 - HASH_PRIME_1;
}

static void hash_stripe(uint64_t lanes[4], const unsigned char *at)
{
    lanes[0] = hash_round(lanes[0], hash_word(at, 8));
    lanes[1] = hash_round(lanes[1], hash_word(at + 8, 8));
    lanes[2] = hash_round(lanes[2], hash_word(at + 16, 8));
    lanes[3] = hash_round(lanes[3], hash_word(at + 24, 8));
}

void sl_hash_add(sl_hash *hash, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    hash->total += length;
    if (hash->held + length < HASH_STRIPE) {
        memcpy(hash->rest + hash->held, at, length);
        hash->held += length;
        return;
    }
    if (hash->held > 0) {
        size_t missing = HASH_STRIPE - hash->held;
        memcpy(hash->rest + hash->held, at, missing);
        hash_stripe(hash->lanes, hash->rest);
        at += missing;
        length -= missing;
    }
    for (; length >= HASH_STRIPE; at += HASH_STRIPE, length -= HASH_STRIPE)
        hash_stripe(hash->lanes, at);
    memcpy(hash->rest, at, length);
    hash->held = length;
}

static uint64_t hash_merge(uint64_t value, uint64_t lane)
{
    return (value ^ hash_round(0, lane)) * HASH_PRIME_1 + HASH_PRIME_4;
}

static uint64_t hash_lanes(const sl_hash *hash)
{
    const uint64_t *lanes = hash->lanes;
    if (hash->total < HASH_STRIPE)
        return lanes[2] + HASH_PRIME_5;
    uint64_t value = hash_rotate(lanes[0], 1) + hash_rotate(lanes[1], 7) +
                     hash_rotate(lanes[2], 12) + hash_rotate(lanes[3], 18);
    for (int i = 0; i < 4; i++)
        value = hash_merge(value, lanes[i]);
    return value;
}

uint64_t sl_hash_value(const sl_hash *hash)
{
    uint64_t value = hash_lanes(hash) + hash->total;
    const unsigned char *at = hash->rest, *end = at + hash->held;
    for (; end - at >= 8; at += 8)
        value =
            hash_rotate(value ^ hash_round(0, hash_word(at, 8)), 27) * HASH_PRIME_1 + HASH_PRIME_4;
    if (end - at >= 4) {
        value =
            hash_rotate(value ^ hash_word(at, 4) * HASH_PRIME_1, 23) * HASH_PRIME_2 + HASH_PRIME_3;
        at += 4;
    }
    for (; at < end; at++)
        value = hash_rotate(value ^ *at * HASH_PRIME_5, 11) * HASH_PRIME_1;
    value = (value ^ value >> 33) * HASH_PRIME_2;
    value = (value ^ value >> 29) * HASH_PRIME_3;
    return value ^ value >> 32;
}
