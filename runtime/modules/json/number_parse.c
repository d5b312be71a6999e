/* SPDX-License-Identifier: MIT */
/*
 * Text to numbers, correctly rounded and independent of the locale.
 *
 * Three ways, fastest first: one multiplication where both factors are exact doubles; the method
 * of Eisel and Lemire (Daniel Lemire, "Number parsing at a gigabyte per second", 2021), in the
 * arrangement that gives up when in doubt; and strtod on digits without a point, which is what a
 * locale could change.
 */
#include "engine.h"

#include <math.h>
#include <stdlib.h>

__extension__ typedef unsigned __int128 json_parse_wide;

enum {
    JSON_MANTISSA_DIGITS = 19, /* as many always fit in 64 bits */
    JSON_EXACT_DIGITS = 768,   /* more significant digits than any midpoint of two doubles has */
    JSON_EXPONENT_CAP = 1000000000,
};

/* mantissa * 10^exponent; `cut` when digits were left out of the mantissa */
struct json_scanned {
    uint64_t mantissa;
    int64_t exponent;
    bool negative, cut;
    const char *first, *last; /* the digits and the point, without the exponent */
};

static const double json_exact_powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                           1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                           1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* False when the 128 bits at hand do not decide, or the result is not a normal double. */
static bool json_eisel_lemire(uint64_t mantissa, int exponent, double *value)
{
    int zeros = __builtin_clzll(mantissa);
    uint64_t w = mantissa << zeros;
    int64_t e2 = ((217706 * exponent) >> 16) + 64 + 1023 - zeros;
    sl_json_power power = sl_json_power10(exponent);
    json_parse_wide x = (json_parse_wide)w * power.high;
    uint64_t high = (uint64_t)(x >> 64), low = (uint64_t)x, top, bits;
    if ((high & 0x1FF) == 0x1FF && low + w < w) {
        json_parse_wide y = (json_parse_wide)w * power.low;
        uint64_t merged = low + (uint64_t)(y >> 64);
        high += merged < low;
        low = merged;
        if ((high & 0x1FF) == 0x1FF && low + 1 == 0 && (uint64_t)y + w < w)
            return false;
    }
    top = high >> 63;
    bits = high >> (top + 9);
    e2 -= (int64_t)(1 ^ top);
    if (low == 0 && (high & 0x1FF) == 0 && (bits & 3) == 1)
        return false; /* half way, or so close that the lost bits matter */
    bits = (bits + (bits & 1)) >> 1;
    if (bits >> 53 != 0) {
        bits >>= 1;
        e2++;
    }
    if (e2 < 1 || e2 > 2046)
        return false;
    bits = (bits & ((UINT64_C(1) << 52) - 1)) | (uint64_t)e2 << 52;
    memcpy(value, &bits, sizeof *value);
    return true;
}

/* The exact value, through strtod: all digits that can matter, and an exponent. */
static double json_parse_slowly(const struct json_scanned *s, int64_t exponent)
{
    char text[JSON_EXACT_DIGITS + 40], *out = text;
    bool point = false, more = false;
    for (const char *p = s->first; p < s->last; p++) {
        if (*p == '.') {
            point = true;
            continue;
        }
        if (out - text < JSON_EXACT_DIGITS) {
            if (out != text || *p != '0')
                *out++ = *p;
            exponent -= point;
        } else {
            more |= *p != '0';
            exponent += !point;
        }
    }
    if (more) { /* any digit will do: it only has to be more than nothing */
        *out++ = '1';
        exponent--;
    }
    *out++ = 'e';
    *sl_json_write_integer(out, exponent) = '\0';
    return strtod(text, NULL);
}

static double json_scanned_value(const struct json_scanned *s, int64_t written_exponent)
{
    double value, above;
    int exponent = (int)s->exponent;
    if (s->mantissa == 0 || s->exponent < SL_JSON_POWER_MIN - 1)
        return 0.0;
    if (s->exponent > 308)
        return HUGE_VAL;
    if (!s->cut && s->mantissa <= UINT64_C(1) << 53 && exponent >= -22 && exponent <= 22) {
        value = (double)s->mantissa;
        return exponent < 0 ? value / json_exact_powers[-exponent]
                            : value * json_exact_powers[exponent];
    }
    if (exponent >= SL_JSON_POWER_MIN && json_eisel_lemire(s->mantissa, exponent, &value) &&
        (!s->cut || (json_eisel_lemire(s->mantissa + 1, exponent, &above) && value == above)))
        return value;
    return json_parse_slowly(s, written_exponent);
}

/* For more digits than the mantissa holds: the first 19 that count. */
static void json_cut_mantissa(struct json_scanned *s)
{
    int digits = 0;
    bool point = false;
    s->mantissa = 0;
    s->exponent = 0;
    for (const char *p = s->first; p < s->last; p++) {
        if (*p == '.') {
            point = true;
        } else if (digits < JSON_MANTISSA_DIGITS) {
            s->mantissa = s->mantissa * 10 + (uint64_t)(*p - '0');
            digits += s->mantissa != 0;
            s->exponent -= point;
        } else {
            s->cut = true;
            s->exponent += !point;
        }
    }
}

static const char *json_scan_digits(const char *p, uint64_t *mantissa)
{
    uint64_t m = *mantissa;
    for (; sl_json_is_digit(*p); p++)
        m = m * 10 + (uint64_t)(*p - '0');
    *mantissa = m;
    return p;
}

static const char *json_bad_number(const char *p, sl_json_number *number)
{
    number->kind = SL_JSON_BAD_NUMBER;
    return p;
}

/* [eE][+-]?digits at p, if it is there; NULL when it is broken, with `*at` where */
static const char *json_scan_exponent(const char *p, int64_t *exponent, const char **at)
{
    bool negative;
    *exponent = 0;
    if (*p != 'e' && *p != 'E')
        return p;
    p++;
    negative = *p == '-';
    p += negative || *p == '+';
    if (!sl_json_is_digit(*p)) {
        *at = p;
        return NULL;
    }
    for (; sl_json_is_digit(*p); p++) {
        if (*exponent < JSON_EXPONENT_CAP)
            *exponent = *exponent * 10 + (*p - '0');
    }
    if (negative)
        *exponent = -*exponent;
    return p;
}

static const char *json_read_float(const char *p, struct json_scanned *s, sl_json_number *number)
{
    int64_t written;
    const char *at = p;
    ptrdiff_t digits = p - s->first;
    if (*p == '.') {
        at = json_scan_digits(p + 1, &s->mantissa);
        s->exponent = p + 1 - at;
        digits += at - p - 1;
        if (at == p + 1)
            return json_bad_number(at, number);
        p = at;
    }
    s->last = p;
    if (digits > JSON_MANTISSA_DIGITS)
        json_cut_mantissa(s);
    p = json_scan_exponent(p, &written, &at);
    if (p == NULL)
        return json_bad_number(at, number);
    s->exponent += written;
    number->value = json_scanned_value(s, written);
    number->kind = number->value == HUGE_VAL ? SL_JSON_OUT_OF_RANGE : SL_JSON_FLOAT;
    if (s->negative)
        number->value = -number->value;
    return p;
}

const char *sl_json_read_number(const char *p, sl_json_number *number)
{
    struct json_scanned s = {.negative = *p == '-'};
    s.first = p += s.negative;
    p = json_scan_digits(p, &s.mantissa);
    if (p == s.first)
        return json_bad_number(p, number);
    if (*s.first == '0' && p - s.first > 1)
        return json_bad_number(s.first + 1, number);
    if (*p == '.' || *p == 'e' || *p == 'E' || p - s.first > JSON_MANTISSA_DIGITS ||
        s.mantissa > (uint64_t)INT64_MAX + s.negative || (s.negative && s.mantissa == 0))
        return json_read_float(p, &s, number);
    number->kind = SL_JSON_INTEGER;
    number->integer = (int64_t)(s.negative ? 0 - s.mantissa : s.mantissa);
    return p;
}
