/* SPDX-License-Identifier: MIT */
/* Where a terminal puts the characters of a text. */
#include "width.h"

#include <string.h>
#include <wchar.h>

enum {
    TAB_CELLS = 8,
};

static void advance(text_place *place, int cells, int columns)
{
    if (place->column + cells > columns) {
        place->row++;
        place->column = 0;
    }
    place->column += cells;
    if (place->column >= columns) {
        place->row++;
        place->column = 0;
    }
}

/** The bytes of an escape sequence such as "\033[1;32m"; 0: there is none. */
static size_t sequence_length(const char *text, size_t length)
{
    if (length < 3 || text[0] != '\033' || text[1] != '[')
        return 0;
    for (size_t i = 2; i < length; i++)
        if (text[i] >= 0x40 && text[i] <= 0x7e)
            return i + 1;
    return 0;
}

/** A character that is no control character; returns its bytes. */
static size_t follow_character(text_place *place, const char *text, size_t length, int columns)
{
    wchar_t character;
    mbstate_t state;
    memset(&state, 0, sizeof state);
    size_t bytes = mbrtowc(&character, text, length, &state);
    if (bytes == 0 || bytes == (size_t)-1 || bytes == (size_t)-2) {
        advance(place, 1, columns);
        return 1;
    }
    int cells = wcwidth(character);
    advance(place, cells < 0 ? 1 : cells, columns);
    return bytes;
}

void width_follow(text_place *place, const char *text, size_t length, int columns)
{
    for (size_t i = 0; i < length;) {
        size_t sequence = sequence_length(text + i, length - i);
        if (sequence > 0) {
            i += sequence;
            continue;
        }
        unsigned char byte = (unsigned char)text[i];
        if (byte == '\n') {
            place->row++;
            place->column = 0;
        } else if (byte == '\r') {
            place->column = 0;
        } else if (byte == '\t') {
            do
                advance(place, 1, columns);
            while (place->column % TAB_CELLS != 0);
        } else if (byte < 0x20 || byte == 0x7f) {
            advance(place, 2, columns);
        } else {
            i += follow_character(place, text + i, length - i, columns);
            continue;
        }
        i++;
    }
}
