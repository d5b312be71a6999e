/* SPDX-License-Identifier: MIT */
/*
 * The console of the program's REPL: lines from a terminal or a pipe, for Lua as functions of the
 * host's, and output that leaves the line being typed whole.
 *
 *     read_line(prompt) -> { event =, text =, hangup = }   see lua/sluice/repl; in a pipe no prompt
 *     edit(delete, insert, above)                          changes the line after "complete"
 *     wait_interrupt() -> reason                           at Ctrl-C, while no line is read
 *     console() -> { interactive =, editor =, missing = }  what the terminal can do
 *     open_history(path)                                   reads and keeps the entries; or nil, err
 *     remember(entry)                                      adds one; or nil, err
 */
#ifndef SL_HOST_CONSOLE_H
#define SL_HOST_CONSOLE_H

#include "../sluice.h"

#include <stdbool.h>

typedef struct console console;

/** Whether these arguments start the REPL. */
bool console_is_wanted(int argc, char **argv);

/** Before an instance is made: on a terminal, standard output and error go through the console from
 * here on. NULL without memory. */
console *console_open(void);
/** Registers the functions. Returns 0 or a negative enum sluice_err. */
int console_attach(console *self, sluice *s);
/** After each pump: shows what was written, looks at what signals said. */
void console_turn(console *self);
/** Ctrl-C: the line that is typed is dropped, or what runs is told; false where there is no
 * terminal to go on with. */
bool console_interrupt(console *self);
/** Gives the terminal back. NULL is fine. */
void console_close(console *self);

/** The terminal as it was, from a signal handler. */
void console_restore(void);
/** The size of the terminal changed, or the program goes on after it was stopped: from a signal
 * handler; console_turn() does the rest. */
void console_note_signal(int number);

#endif
