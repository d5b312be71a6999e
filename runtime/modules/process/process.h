/* SPDX-License-Identifier: MIT */
/*
 * A child process that runs to its end: started by posix_spawn, watched by a pidfd on the loop.
 *
 * The child has no standard input, a process group of its own, the environment of this process and
 * default signals. What it prints is kept within bounds. No signal handler, no SIGCHLD.
 */
#ifndef SL_PROCESS_H
#define SL_PROCESS_H

#include "core/core.h"

typedef struct sl_process sl_process;

/** How the child ended, and what it printed. */
typedef struct sl_process_result {
    /** The first bytes of standard output, at most `max_out`; `overflowed`: there were more. */
    const char *out;
    size_t out_length;
    bool overflowed;
    /** The last bytes of standard error, at most `max_err`. */
    const char *err;
    size_t err_length;
    /** The exit status; -1 where a signal ended it, or where it cannot be known. */
    int status;
    /** The signal that ended it, or 0. */
    int signal;
} sl_process_result;

/**
 * Starts argv[0], found through PATH, as a child.
 *
 * @param argv ends with NULL; read before the call returns.
 * @param on_end called once from the loop when the child has ended; not after sl_process_delete.
 * @return NULL with errno set.
 */
sl_process *sl_process_new(sl_core *core, char *const argv[], size_t max_out, size_t max_err,
                           void (*on_end)(void *user), void *user);

/** Whether on_end has been called. */
bool sl_process_has_ended(const sl_process *process);

/** Of one that has ended; the texts live as long as the process object. */
sl_process_result sl_process_get_result(sl_process *process);

/** Kills the child and its group where it still runs, and forgets it. Never waits. */
void sl_process_delete(sl_process *process);

#endif
