/* SPDX-License-Identifier: MIT */
/* Holding back the signals of writes. */
#include "signals.h"

#include <errno.h>
#include <time.h>

static void signal_alone(int number, sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, number);
}

void sl_signal_hold(int number, sigset_t *before)
{
    sigset_t held;
    signal_alone(number, &held);
    pthread_sigmask(SIG_BLOCK, &held, before);
}

void sl_signal_release(int number, const sigset_t *before, bool raised)
{
    int error = errno;
    sigset_t held;
    signal_alone(number, &held);
    if (raised && !sigismember(before, number))
        sigtimedwait(&held, NULL, &(struct timespec){0, 0});
    pthread_sigmask(SIG_SETMASK, before, NULL);
    errno = error;
}
