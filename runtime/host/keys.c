/* SPDX-License-Identifier: MIT */
/* Where a key ends in what a terminal sends. */
#include "keys.h"

#include <stdbool.h>

enum {
    /* No terminal sends a longer sequence; behind it a byte is a key of its own. */
    SEQUENCE_MOST = 32,
};

static size_t character_length(unsigned char first)
{
    return first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/** Whether the next key belongs to this one: "insert it as it is", and the prefix of emacs. */
static bool takes_next(unsigned char byte)
{
    return byte == KEY_CTRL('V') || byte == KEY_CTRL('X');
}

/** From behind "\033[": its parameters and its last byte. */
static size_t control_length(const char *bytes, size_t length)
{
    for (size_t i = 2; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        bool is_last = byte >= 0x40 && byte <= 0x7e;
        if (i == 2 && byte == '[') /* function keys of the Linux console */
            return length > 3 ? 4 : 0;
        if (is_last || i >= SEQUENCE_MOST || byte < 0x20)
            return i + 1;
    }
    return 0;
}

size_t key_length(const char *bytes, size_t length)
{
    size_t prefix = 0;
    while (prefix < length && prefix < SEQUENCE_MOST && takes_next((unsigned char)bytes[prefix]))
        prefix++;
    while (prefix < length && prefix < SEQUENCE_MOST && bytes[prefix] == KEY_ESCAPE) {
        size_t left = length - prefix;
        const char *at = bytes + prefix;
        if (left < 2)
            return 0;
        if (at[1] == '[') {
            size_t sequence = control_length(at, left);
            return sequence > 0 ? prefix + sequence : 0;
        }
        if (at[1] == 'O')
            return left >= 3 ? prefix + 3 : 0;
        prefix++;
    }
    if (prefix >= length)
        return 0;
    size_t whole = prefix + character_length((unsigned char)bytes[prefix]);
    return whole <= length ? whole : 0;
}
