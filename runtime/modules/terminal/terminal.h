/* SPDX-License-Identifier: MIT */
/* What a terminal is asked and told: is it one, how large is it, show these bytes. */
#ifndef SL_TERMINAL_H
#define SL_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

/** Whether the descriptor is a terminal. */
bool sl_terminal_is_one(int fd);

/** The size in character cells, as it is now; false when it is no terminal or does not know. */
bool sl_terminal_size(int fd, int *columns, int *rows);

/**
 * Writes all bytes, in one write(2) where the descriptor takes them. Interrupted writes go on; a
 * non-blocking descriptor that takes nothing for a second gives EAGAIN, so that a stopped terminal
 * (Ctrl-S) cannot hold the loop for ever. SIGPIPE is the host's.
 *
 * @return 0, or an errno value; then a part may have been written.
 */
int sl_terminal_write(int fd, const char *bytes, size_t length);

#endif
