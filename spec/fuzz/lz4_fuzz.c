/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the unpacking of LZ4: nothing outside of block, dictionary and target is touched, and what
 * fits is the same each time.
 *
 * The first byte is the size of the target, in 16 bytes, the second that of the dictionary.
 */
#include "lz4.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require_that(bool is_so, const char *what)
{
    if (!is_so) {
        fprintf(stderr, "lz4_fuzz: %s\n", what);
        abort();
    }
}

/* In memory of its own, so that touching what is beyond is seen. */
static unsigned char *fuzz_copy(const uint8_t *data, size_t size)
{
    unsigned char *copy = malloc(size ? size : 1);
    require_that(copy != NULL, "no memory");
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t to_size = 16 * (size_t)data[0] + data[1] % 16, before = data[1] % 64;
    size_t packed = size - 2;
    before = before < packed ? before : packed;
    unsigned char *words = fuzz_copy(data + 2, before), *block = fuzz_copy(data + 2, packed);
    const sl_lz4_dictionary dictionary = {words, before};
    unsigned char *one = calloc(1, to_size ? to_size : 1), *other = malloc(to_size ? to_size : 1);
    require_that(one && other, "no memory");
    memset(other, 0xff, to_size);
    bool fits = sl_lz4_unpack(block, packed, &dictionary, one, to_size);
    require_that(fits == sl_lz4_unpack(block, packed, &dictionary, other, to_size), "it fits once");
    require_that(!fits || memcmp(one, other, to_size) == 0, "bytes that nobody wrote");
    free(one);
    free(other);
    free(words);
    free(block);
    return 0;
}
