/* SPDX-License-Identifier: MIT */
/* Fuzzes the readers of hints how long to wait: whatever comes in, it is finite and not negative.
 */
#include "modules/backoff/backoff.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static double now_from(const uint8_t *data, size_t size)
{
    double now = 1767225600.0;
    if (size >= sizeof now && (data[0] & 1)) {
        memcpy(&now, data, sizeof now);
    }
    return now;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    double seconds = -1;
    if (sl_retry_after_parse((const char *)data, size, now_from(data, size), &seconds) &&
        !(isfinite(seconds) && seconds >= 0)) {
        abort();
    }
    double number = -1;
    if (sl_retry_decimal_parse((const char *)data, size, &number) &&
        !(isfinite(number) && number >= 0 && number <= 2147483648.0)) {
        abort();
    }
    int64_t attempt = 0;
    memcpy(&attempt, data, size < sizeof attempt ? size : sizeof attempt);
    double delay = sl_backoff_delay(attempt, 0.5, 8.0, 1.0);
    if (!(delay >= 0.5 && delay <= 8.0)) {
        abort();
    }
    return 0;
}
