/* SPDX-License-Identifier: MIT */
/* UTF-8: which sequences are valid (RFC 3629), and how much of a broken one to replace. */
#include "engine.h"

/* The second byte's range after each lead byte keeps out overlong forms, surrogates and > 10FFFF.
 */
static int json_utf8_lead(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    if (lead < 0xE0)
        return 2;
    if (lead < 0xF0) {
        *low = lead == 0xE0 ? 0xA0 : 0x80;
        *high = lead == 0xED ? 0x9F : 0xBF;
        return 3;
    }
    *low = lead == 0xF0 ? 0x90 : 0x80;
    *high = lead == 0xF4 ? 0x8F : 0xBF;
    return 4;
}

int sl_json_utf8_length(const char *p, const char *end)
{
    const unsigned char *s = (const unsigned char *)p;
    unsigned char low, high;
    int length = json_utf8_lead(s[0], &low, &high);
    int have = end - p < length ? (int)(end - p) : length;
    if (have < 2 || s[1] < low || s[1] > high)
        return -1;
    for (int i = 2; i < have; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return -i;
    }
    return have == length ? length : -have;
}
