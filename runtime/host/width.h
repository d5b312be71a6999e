/* SPDX-License-Identifier: MIT */
/* Where a terminal puts the characters of a text. */
#ifndef SL_HOST_WIDTH_H
#define SL_HOST_WIDTH_H

#include <stddef.h>

/** A cell, counted from where the text began. */
typedef struct text_place {
    int row, column;
} text_place;

/** Moves the place over a text as a terminal of so many columns shows it, which goes to the next
 * row behind its last column. Colours take no place; other control characters two, as ^X does. */
void width_follow(text_place *place, const char *text, size_t length, int columns);

#endif
