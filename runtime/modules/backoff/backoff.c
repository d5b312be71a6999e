/* SPDX-License-Identifier: MIT */
/* The arithmetic of waiting: the backoff curve and the reader of Retry-After. No Lua, no clock. */
#include "backoff.h"

#include <math.h>
#include <string.h>

/* 2^1023 is the last power of two of a double; every cap is reached long before. */
#define MAX_EXPONENT 1023

/* What RFC 9111, section 1.2.2 tells readers to make of a number of seconds that is too large. */
#define MAX_SECONDS 2147483648.0

double sl_backoff_delay(int64_t attempt, double base, double cap, double random)
{
    int exponent = 0;
    if (attempt > MAX_EXPONENT) {
        exponent = MAX_EXPONENT;
    } else if (attempt > 1) {
        exponent = (int)attempt - 1;
    }
    double ceiling = ldexp(base, exponent);
    if (!(ceiling < cap)) {
        ceiling = cap;
    }
    return ceiling * random;
}

/* What is left of the text that is read. */
struct cursor {
    const char *at, *end;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool take_char(struct cursor *in, char wanted)
{
    if (in->at == in->end || *in->at != wanted) {
        return false;
    }
    in->at++;
    return true;
}

static bool take_text(struct cursor *in, const char *wanted)
{
    size_t length = strlen(wanted);
    if ((size_t)(in->end - in->at) < length || memcmp(in->at, wanted, length) != 0) {
        return false;
    }
    in->at += length;
    return true;
}

/* Exactly `digits` digits. */
static bool take_number(struct cursor *in, int digits, int *number)
{
    int value = 0;
    for (int i = 0; i < digits; i++) {
        if (in->at == in->end || !is_digit(*in->at)) {
            return false;
        }
        value = value * 10 + (*in->at++ - '0');
    }
    *number = value;
    return true;
}

/* One of `count` names; its index. */
static bool take_name(struct cursor *in, const char *const *names, int count, int *index)
{
    for (int i = 0; i < count; i++) {
        if (take_text(in, names[i])) {
            *index = i;
            return true;
        }
    }
    return false;
}

static const char *const SHORT_DAYS[] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};
static const char *const LONG_DAYS[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                        "Friday", "Saturday", "Sunday"};
static const char *const MONTHS[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

struct date {
    int year, month, day, hour, minute, second;
};

static bool take_time(struct cursor *in, struct date *date)
{
    return take_number(in, 2, &date->hour) && take_char(in, ':') &&
           take_number(in, 2, &date->minute) && take_char(in, ':') &&
           take_number(in, 2, &date->second);
}

/* Sun, 06 Nov 1994 08:49:37 GMT */
static bool read_fixdate(struct cursor in, struct date *date)
{
    int weekday;
    return take_name(&in, SHORT_DAYS, 7, &weekday) && take_text(&in, ", ") &&
           take_number(&in, 2, &date->day) && take_char(&in, ' ') &&
           take_name(&in, MONTHS, 12, &date->month) && take_char(&in, ' ') &&
           take_number(&in, 4, &date->year) && take_char(&in, ' ') && take_time(&in, date) &&
           take_text(&in, " GMT") && in.at == in.end;
}

/* Sunday, 06-Nov-94 08:49:37 GMT; the century is the caller's to find. */
static bool read_rfc850(struct cursor in, struct date *date)
{
    int weekday;
    return take_name(&in, LONG_DAYS, 7, &weekday) && take_text(&in, ", ") &&
           take_number(&in, 2, &date->day) && take_char(&in, '-') &&
           take_name(&in, MONTHS, 12, &date->month) && take_char(&in, '-') &&
           take_number(&in, 2, &date->year) && take_char(&in, ' ') && take_time(&in, date) &&
           take_text(&in, " GMT") && in.at == in.end;
}

/* Sun Nov  6 08:49:37 1994 */
static bool read_asctime(struct cursor in, struct date *date)
{
    int weekday;
    if (!take_name(&in, SHORT_DAYS, 7, &weekday) || !take_char(&in, ' ') ||
        !take_name(&in, MONTHS, 12, &date->month) || !take_char(&in, ' ')) {
        return false;
    }
    int digits = take_char(&in, ' ') ? 1 : 2;
    return take_number(&in, digits, &date->day) && take_char(&in, ' ') && take_time(&in, date) &&
           take_char(&in, ' ') && take_number(&in, 4, &date->year) && in.at == in.end;
}

static bool is_leap(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int days_of_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 1 && is_leap(year) ? 29 : days[month];
}

/* Days from 1970-01-01 to the first of January of a year of at least 1. */
static int64_t days_before_year(int year)
{
    int64_t before = year - 1;
    return before * 365 + before / 4 - before / 100 + before / 400 - 719162;
}

/* The month counts from 0. A leap second (60) is allowed. */
static bool seconds_of_date(const struct date *date, double *seconds)
{
    if (date->year < 1 || date->day < 1 || date->day > days_of_month(date->year, date->month) ||
        date->hour > 23 || date->minute > 59 || date->second > 60) {
        return false;
    }
    int64_t days = days_before_year(date->year) + date->day - 1;
    for (int month = 0; month < date->month; month++) {
        days += days_of_month(date->year, month);
    }
    int64_t clock = ((int64_t)date->hour * 60 + date->minute) * 60 + date->second;
    *seconds = (double)(days * 86400 + clock);
    return true;
}

/*
 * RFC 9110, section 5.6.7: a two-digit year that appears to be more than 50 years ahead is the most
 * recent year in the past with those digits. Years are taken as 365.2425 days, exact enough here.
 */
static bool seconds_of_short_year(struct date *date, double now, double *seconds)
{
    double year = 1970.0 + floor(now / (365.2425 * 86400.0));
    if (!(year >= 1.0 && year <= 9000.0)) {
        return false;
    }
    date->year += ((int)year / 100) * 100;
    if (date->year > (int)year + 50) {
        date->year -= 100;
    } else if (date->year < (int)year - 49) {
        date->year += 100;
    }
    return seconds_of_date(date, seconds);
}

static bool parse_date(struct cursor in, double now, double *seconds)
{
    struct date date = {0};
    double when = 0;
    if (read_fixdate(in, &date) || read_asctime(in, &date)) {
        if (!seconds_of_date(&date, &when)) {
            return false;
        }
    } else if (!read_rfc850(in, &date) || !seconds_of_short_year(&date, now, &when)) {
        return false;
    }
    *seconds = when > now ? when - now : 0;
    return true;
}

/* Digits, and maybe a point with digits after it. */
static bool parse_seconds(struct cursor in, double *seconds)
{
    double value = 0, unit = 1;
    while (in.at != in.end && is_digit(*in.at)) {
        value = value * 10 + (*in.at++ - '0');
        if (value > MAX_SECONDS) {
            value = MAX_SECONDS;
        }
    }
    if (take_char(&in, '.')) {
        if (in.at == in.end) {
            return false;
        }
        while (in.at != in.end && is_digit(*in.at)) {
            unit /= 10;
            value += unit * (*in.at++ - '0');
        }
    }
    *seconds = value > MAX_SECONDS ? MAX_SECONDS : value;
    return in.at == in.end;
}

static bool is_padding(char c)
{
    return c == ' ' || c == '\t';
}

static struct cursor without_padding(const char *text, size_t length)
{
    struct cursor in = {text, text + length};
    while (in.at != in.end && is_padding(*in.at)) {
        in.at++;
    }
    while (in.at != in.end && is_padding(in.end[-1])) {
        in.end--;
    }
    return in;
}

bool sl_retry_decimal_parse(const char *text, size_t length, double *number)
{
    struct cursor in = without_padding(text, length);
    return in.at != in.end && is_digit(*in.at) && parse_seconds(in, number);
}

bool sl_retry_after_parse(const char *text, size_t length, double now, double *seconds)
{
    struct cursor in = without_padding(text, length);
    if (in.at == in.end || !isfinite(now)) {
        return false;
    }
    return is_digit(*in.at) ? parse_seconds(in, seconds) : parse_date(in, now, seconds);
}
