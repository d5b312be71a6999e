/* SPDX-License-Identifier: MIT */
/*
 * Numbers to text: integers, and doubles in their shortest form.
 *
 * The digits of a double come from Schubfach (Raffaello Giulietti, "The Schubfach way to render
 * doubles", 2020), in the arrangement of Alexander Bolz.
 */
#include "engine.h"

__extension__ typedef unsigned __int128 json_format_wide;

/* digits * 10^exponent */
struct json_decimal {
    uint64_t digits;
    int exponent;
};

static const char json_digit_pairs[] = "00010203040506070809101112131415161718192021222324"
                                       "25262728293031323334353637383940414243444546474849"
                                       "50515253545556575859606162636465666768697071727374"
                                       "75767778798081828384858687888990919293949596979899";

static int json_count_digits(uint64_t value)
{
    int count = 1;
    for (; value >= 10000; value /= 10000)
        count += 4;
    return count + (value >= 10) + (value >= 100) + (value >= 1000);
}

/* Writes exactly `count` digits; returns the end. */
static char *json_write_digits(char *out, uint64_t value, int count)
{
    char *p = out + count;
    for (; value >= 100; value /= 100) {
        p -= 2;
        memcpy(p, json_digit_pairs + value % 100 * 2, 2);
    }
    if (value >= 10)
        memcpy(p - 2, json_digit_pairs + value * 2, 2);
    else
        p[-1] = (char)('0' + value);
    return out + count;
}

char *sl_json_write_integer(char *out, int64_t value)
{
    uint64_t magnitude = (uint64_t)value;
    if (value < 0) {
        *out++ = '-';
        magnitude = 0 - magnitude;
    }
    return json_write_digits(out, magnitude, json_count_digits(magnitude));
}

/* The top bits of g * c, the last one set when anything below them is. */
static uint64_t json_round_to_odd(sl_json_power g, uint64_t c)
{
    json_format_wide low = (json_format_wide)g.low * c;
    json_format_wide high = (json_format_wide)g.high * c + (uint64_t)(low >> 64);
    return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

/* The smallest 128-bit significand that is not below 10^k. */
static sl_json_power json_power_above(int k)
{
    sl_json_power g = sl_json_power10(k);
    if (k < 0 || k > 55) { /* 5^55 is the last that fits in 128 bits */
        g.low += 1;
        g.high += g.low == 0;
    }
    return g;
}

/* c * 2^q, c > 0, to the shortest decimal; `closer`: the double below is half as far away. */
static struct json_decimal json_shortest(uint64_t c, int q, bool closer)
{
    int k = (q * 1262611 - (closer ? 524031 : 0)) >> 22; /* floor(log10(2^q)), or of 3/4 of it */
    int h = q + ((-k * 1741647) >> 19) + 1;              /* floor(log2(10^-k)) */
    sl_json_power g = json_power_above(-k);
    uint64_t low = json_round_to_odd(g, (4 * c - 2 + closer) << h);
    uint64_t value = json_round_to_odd(g, (4 * c) << h);
    uint64_t high = json_round_to_odd(g, (4 * c + 2) << h);
    uint64_t s = value / 4;
    bool below, above;
    low += c & 1; /* the ends of the interval belong to it when c is even */
    high -= c & 1;
    if (s >= 10) {
        uint64_t tens = s / 10;
        below = low <= 40 * tens;
        above = 40 * tens + 40 <= high;
        if (below != above)
            return (struct json_decimal){tens + above, k + 1};
    }
    below = low <= 4 * s;
    above = 4 * s + 4 <= high;
    if (below == above)
        above = value > 4 * s + 2 || (value == 4 * s + 2 && (s & 1) != 0);
    return (struct json_decimal){s + above, k};
}

/* `bits` without the sign, not zero */
static struct json_decimal json_double_decimal(uint64_t bits)
{
    uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    int exponent = (int)(bits >> 52);
    uint64_t c = exponent != 0 ? fraction | UINT64_C(1) << 52 : fraction;
    int q = (exponent != 0 ? exponent : 1) - 1075;
    struct json_decimal d;
    if (q <= 0 && q > -53 && (c & ((UINT64_C(1) << -q) - 1)) == 0)
        d = (struct json_decimal){c >> -q, 0}; /* a whole number */
    else
        d = json_shortest(c, q, fraction == 0 && exponent > 1);
    if (d.digits % 100000000 == 0) {
        d.digits /= 100000000;
        d.exponent += 8;
    }
    for (; d.digits % 10 == 0; d.digits /= 10)
        d.exponent++;
    return d;
}

/* d.ddde-dd */
static char *json_write_scientific(char *out, struct json_decimal d, int count)
{
    int exponent = d.exponent + count - 1;
    json_write_digits(out + 1, d.digits, count);
    out[0] = out[1];
    out[1] = '.';
    out += count == 1 ? 1 : count + 1;
    *out++ = 'e';
    if (exponent < 0)
        *out++ = '-';
    exponent = exponent < 0 ? -exponent : exponent;
    return json_write_digits(out, (uint64_t)exponent, json_count_digits((uint64_t)exponent));
}

char *sl_json_write_double(char *out, double value)
{
    enum { SMALLEST = -5, LARGEST = 17 }; /* where the point may stand in plain notation */
    uint64_t bits;
    struct json_decimal d = {0, 0};
    int count, point;
    memcpy(&bits, &value, sizeof bits);
    if (bits >> 63 != 0)
        *out++ = '-';
    bits &= ~(UINT64_C(1) << 63);
    if (bits != 0)
        d = json_double_decimal(bits);
    count = json_count_digits(d.digits);
    point = count + d.exponent;
    if (point <= SMALLEST || point > LARGEST)
        return json_write_scientific(out, d, count);
    if (point <= 0) {
        memcpy(out, "0.00000", 7);
        return json_write_digits(out + 2 - point, d.digits, count);
    }
    json_write_digits(out, d.digits, count);
    if (point < count) {
        memmove(out + point + 1, out + point, (size_t)(count - point));
        out[point] = '.';
        return out + count + 1;
    }
    memset(out + count, '0', (size_t)(point - count));
    memcpy(out + point, ".0", 2);
    return out + point + 2;
}
