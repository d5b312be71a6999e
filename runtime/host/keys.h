/* SPDX-License-Identifier: MIT */
/* Where a key ends in what a terminal sends. */
#ifndef SL_HOST_KEYS_H
#define SL_HOST_KEYS_H

#include <stddef.h>

#define KEY_CTRL(letter) ((letter)&0x1f)
#define KEY_ESCAPE 0x1b

/** The bytes of the first key: a character, or a sequence that an escape begins. 0: its end has not
 * come yet. */
size_t key_length(const char *bytes, size_t length);

#endif
