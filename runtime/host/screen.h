/* SPDX-License-Identifier: MIT */
/*
 * The lower end of a terminal that several write to: finished output scrolls above, and below it
 * stand, in this order, the output line that has no end yet, rows that change (progress bars), and
 * the line being typed. Output that comes while that block is shown takes it off the screen; it is
 * drawn again, once, when screen_settle() is called.
 */
#ifndef SL_HOST_SCREEN_H
#define SL_HOST_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

enum {
    /* An output line without an end that is longer is ended where a line is typed below it. */
    SCREEN_TAIL = 4096,
};

/** What is drawn last: the line being typed. */
typedef struct screen_line {
    /** Draws it at the cursor, prompt first. */
    void (*draw)(void *user);
    /** How many rows of the screen stand between its first row and the cursor. */
    int (*rows)(void *user, int columns);
    void *user;
} screen_line;

typedef struct screen {
    /** The terminal. */
    int fd;
    int columns;
    /** Whether the terminal moves its cursor; else the line typed is left and written again. */
    bool can_move;
    /** The block is on the screen, and its height above the cursor. */
    bool is_shown;
    int rows_above;
    /** A line is being typed. */
    bool is_typing;
    screen_line line;
    /** The output line without an end, as written. */
    char tail[SCREEN_TAIL];
    size_t tail_length;
    /** Rows that change: text with "\n" between them; to be freed. NULL: none. */
    char *footer;
    /** What is written at the next settle. */
    char *pending;
    size_t pending_length, pending_size;
    /** The terminal is gone. */
    bool is_broken;
} screen;

/** What begins and ends a write that is no output but the rows that change, each behind the other
 * with "\n" between: an application program command, which terminals pass over. */
#define SCREEN_FOOTER_START "\033_sluice:footer;"
#define SCREEN_FOOTER_END "\033\\"

void screen_init(screen *self, int fd, bool can_move);
void screen_fini(screen *self);
/** Reads the width again. */
void screen_resize(screen *self);
/** Shows output, or rows that change (see above), or keeps it until the next settle. Returns false
 * where the terminal takes no more. */
bool screen_write(screen *self, const char *bytes, size_t length);
/** Takes the block off the screen, so that what it is made of may change. */
void screen_hide(screen *self);
/** The block is no longer where it was: nothing is to be taken off. */
void screen_forget(screen *self);
/** Writes what was kept and shows the block, if there is one. */
void screen_settle(screen *self);

#endif
