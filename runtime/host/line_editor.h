/* SPDX-License-Identifier: MIT */
/*
 * Editing a line on a terminal, by libedit, without ever waiting: keys are handed over as they
 * come, and only whole ones reach libedit. The library is loaded when a line is first edited.
 */
#ifndef SL_HOST_LINE_EDITOR_H
#define SL_HOST_LINE_EDITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct line_editor line_editor;

/** What a step came to. */
enum line_event {
    /** No whole key is left. */
    LINE_NONE,
    /** The line was entered. */
    LINE_ENTERED,
    /** Ctrl-D on an empty line. */
    LINE_END,
    /** Tab: the text before the cursor wants completion. */
    LINE_COMPLETE,
};

/**
 * Prepares the editor of the terminal on descriptor 0, drawing on `out`.
 *
 * @param hide called before the editor changes more than libedit draws by itself: the line must be
 *             taken off the screen, and drawn again afterwards.
 * @return NULL where the library is missing or the terminal cannot do it; `reason` says which.
 */
line_editor *line_editor_open(FILE *out, void (*hide)(void *user), void *user, char *reason,
                              size_t reason_size);
/** Gives the terminal back. NULL is fine. */
void line_editor_close(line_editor *self);

/** Begins an empty line; the prompt is copied. It is on the screen after line_editor_draw(). */
void line_editor_start(line_editor *self, const char *prompt);
/** Ends it: the terminal is as it was before, and shows what is typed by itself. */
void line_editor_stop(line_editor *self);
/** Draws the line, prompt first, at the cursor. */
void line_editor_draw(line_editor *self);
/** Takes the terminal again after the program was stopped. */
void line_editor_resume(line_editor *self);
/** The terminal has another size. */
void line_editor_resize(line_editor *self);

/** Adds bytes that were typed; they wait for line_editor_step(). */
void line_editor_feed(line_editor *self, const char *bytes, size_t length);
/** Handles what was typed up to the next event. */
enum line_event line_editor_step(line_editor *self);
/** Forgets what was typed and not handled. */
void line_editor_drop(line_editor *self);

/** The line, NUL-terminated, and how many of its bytes stand before the cursor. Valid until the
 * next call. */
const char *line_editor_text(line_editor *self, size_t *before_cursor);
/** Deletes bytes before the cursor and inserts a text there. */
void line_editor_change(line_editor *self, size_t bytes, const char *text);
/** What stands before the line. */
const char *line_editor_prompt(const line_editor *self);
/** How many rows stand between the first one of the line and the cursor. */
int line_editor_rows(line_editor *self, int columns);

/** Adds an entry to those that the arrow keys bring back; equal neighbours are one. */
void line_editor_remember(line_editor *self, const char *entry);

#endif
