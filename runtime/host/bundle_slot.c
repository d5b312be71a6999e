/* SPDX-License-Identifier: MIT */
/* The place for a bundle's offset, size and checksum. */
#include "bundle_slot.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

/** The mark, which stands once in the program, is how lua/sluice/bundle finds the numbers behind
 * it; in the file they are little endian. Volatile: they are not what the compiler sees. */
static const volatile struct bundle_slot {
    char mark[24];
    unsigned char offset[8], size[8], checksum[8];
} bundle_slot = {.mark = "sluice's bundle: 7e1c9a5"};

static uint64_t read_slot(const volatile unsigned char *at)
{
    uint64_t number = 0;
    for (int i = 8; i-- > 0;)
        number = number << 8 | at[i];
    return number;
}

bool bundle_is_there(void)
{
    return read_slot(bundle_slot.offset) != 0;
}

const char *bundle_place_text(void)
{
    static char text[72];
    if (bundle_is_there())
        snprintf(text, sizeof text, "%" PRId64 " %" PRId64 " %" PRId64,
                 (int64_t)read_slot(bundle_slot.offset), (int64_t)read_slot(bundle_slot.size),
                 (int64_t)read_slot(bundle_slot.checksum));
    return text;
}
