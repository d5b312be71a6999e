/* SPDX-License-Identifier: MIT */
/* How long to wait before another try: full jitter, and what a server's Retry-After asks for. */
#ifndef SL_BACKOFF_H
#define SL_BACKOFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Seconds to wait after a failed try: random * min(cap, base * 2^(attempt - 1)).
 *
 * @param attempt 1 for the first try; any value is safe, below 1 counts as 1.
 * @param base    seconds, at least 0.
 * @param cap     seconds, at least 0.
 * @param random  in [0, 1].
 */
double sl_backoff_delay(int64_t attempt, double base, double cap, double random);

/**
 * Reads digits, maybe with a fraction ("1.5"), blanks around them apart: nothing else. What is
 * larger than 2^31 is 2^31.
 *
 * @param number set to a finite number of at least 0 when true is returned.
 */
bool sl_retry_decimal_parse(const char *text, size_t length, double *number);

/**
 * Reads the value of a Retry-After field (RFC 9110, section 10.2.3): whole seconds, the fraction
 * that some servers send, or one of the three forms of a date (section 5.6.7). A date in the past
 * is 0. Nothing else is accepted, blanks around the value apart.
 *
 * @param now     seconds since the epoch, to count a date from.
 * @param seconds set to a finite number of at least 0 when true is returned.
 */
bool sl_retry_after_parse(const char *text, size_t length, double now, double *seconds);

#endif
