/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the reader of bundles: every entry lies inside the bytes, each begins where the one before
 * ended, and what is sound is what they fill.
 */
#include "modules/bundle/bundle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    /* A letter and the two lengths. */
    ENTRY_HEAD = 13,
};

static void require_that(bool is_so, const char *what)
{
    if (!is_so) {
        fprintf(stderr, "bundle_fuzz: %s\n", what);
        abort();
    }
}

static size_t sum_of(const char *text, size_t length)
{
    size_t sum = 0;
    for (size_t i = 0; i < length; i++)
        sum += (unsigned char)text[i];
    return sum;
}

static bool is_inside(const sl_bundle *bundle, const char *text, size_t length)
{
    const char *first = (const char *)bundle->bytes;
    return text >= first && length <= bundle->size && text <= first + bundle->size - length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* in memory of its own, so that reading beyond it is seen */
    unsigned char *bytes = malloc(size ? size : 1);
    require_that(bytes != NULL, "no memory");
    if (size > 0)
        memcpy(bytes, data, size);
    const sl_bundle bundle = {.bytes = bytes, .size = size};
    sl_bundle_entry entry;
    size_t at = 0, start = 0, sum = 0;
    int found;
    while ((found = sl_bundle_next(&bundle, &at, &entry)) > 0) {
        require_that(is_inside(&bundle, entry.name, entry.name_length), "a name outside");
        require_that(is_inside(&bundle, entry.content, entry.content_length), "content outside");
        require_that(at - start == ENTRY_HEAD + entry.name_length + entry.content_length,
                     "bytes between entries");
        sum += sum_of(entry.name, entry.name_length) + sum_of(entry.content, entry.content_length);
        start = at;
    }
    require_that((found == 0) == sl_bundle_is_sound(&bundle), "sound, but not to be read");
    require_that(found < 0 || at == size, "the end is not the end");
    require_that(sum != (size_t)-1, "never");
    free(bytes);
    return 0;
}
