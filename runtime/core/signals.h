/* SPDX-License-Identifier: MIT */
/* Writes that would raise a signal: what the process does with signals is the host's. */
#ifndef SL_SIGNALS_H
#define SL_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/** Holds a signal that a write raises, SIGPIPE or SIGXFSZ, back from this thread. */
void sl_signal_hold(int number, sigset_t *before);
/** Ends it. `raised`: a write has failed by the signal. Leaves errno as it is. */
void sl_signal_release(int number, const sigset_t *before, bool raised);

#endif
