/* SPDX-License-Identifier: MIT */
/* The little JSON that host functions speak with Lua. What is read comes from our own encoder. */
#include "json_text.h"

#include <stdlib.h>
#include <string.h>

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return (digit | 0x20) - 'a' + 10;
}

static unsigned read_unit(const char *at)
{
    unsigned unit = 0;
    for (int i = 0; i < 4 && at[i]; i++)
        unit = unit << 4 | (unsigned)hex_value(at[i]);
    return unit;
}

/** Writes a code point below 0x10000: the encoder escapes no others. */
static char *put_utf8(char *to, unsigned point)
{
    if (point < 0x80) {
        *to++ = (char)point;
    } else if (point < 0x800) {
        *to++ = (char)(0xc0 | point >> 6);
        *to++ = (char)(0x80 | (point & 0x3f));
    } else {
        *to++ = (char)(0xe0 | point >> 12);
        *to++ = (char)(0x80 | (point >> 6 & 0x3f));
        *to++ = (char)(0x80 | (point & 0x3f));
    }
    return to;
}

static char unescaped(char letter)
{
    switch (letter) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    default:
        return letter;
    }
}

/** From behind the opening quote; returns what is behind the closing one. The text only shrinks. */
static const char *read_string(const char *at, json_argument *argument)
{
    char *to = argument->text = malloc(strlen(at) + 1);
    if (!to)
        return NULL;
    while (*at && *at != '"') {
        if (*at != '\\') {
            *to++ = *at++;
        } else if (at[1] == 'u') {
            to = put_utf8(to, read_unit(at + 2));
            at += 6;
        } else {
            *to++ = unescaped(at[1]);
            at += 2;
        }
    }
    *to = '\0';
    argument->length = (size_t)(to - argument->text);
    return *at ? at + 1 : NULL;
}

static const char *read_value(const char *at, json_argument *argument)
{
    if (*at == '"')
        return read_string(at + 1, argument);
    if (*at == '[' || *at == '{')
        return NULL;
    argument->number = strtol(at, NULL, 10);
    return at + strcspn(at, ",]");
}

bool json_text_read(const char *json, json_argument *arguments, int most)
{
    memset(arguments, 0, (size_t)most * sizeof *arguments);
    const char *at = *json == '[' ? json + 1 : NULL;
    for (int i = 0; at && *at != ']' && i < most; i++) {
        at = read_value(at, &arguments[i]);
        if (at && *at == ',')
            at++;
    }
    if (!at)
        json_text_free(arguments, most);
    return at != NULL;
}

void json_text_free(json_argument *arguments, int count)
{
    for (int i = 0; i < count; i++) {
        free(arguments[i].text);
        arguments[i] = (json_argument){0};
    }
}

/** How many bytes the character at `at` has; 0: it is no UTF-8. */
static size_t utf8_length(const unsigned char *at, size_t left)
{
    size_t length = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    if (length == 0 || length > left || at[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    bool is_overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    bool is_beyond = (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf4 && at[1] > 0x8f);
    return is_overlong || is_beyond ? 0 : length;
}

static bool is_utf8(const char *bytes, size_t length)
{
    const unsigned char *at = (const unsigned char *)bytes;
    while (length > 0) {
        size_t step = utf8_length(at, length);
        if (step == 0)
            return false;
        at += step;
        length -= step;
    }
    return true;
}

static void write_numbers(FILE *out, const char *bytes, size_t length)
{
    putc('[', out);
    for (size_t i = 0; i < length; i++)
        fprintf(out, "%s%d", i > 0 ? "," : "", (unsigned char)bytes[i]);
    putc(']', out);
}

void json_text_write(FILE *out, const char *bytes, size_t length)
{
    if (!is_utf8(bytes, length)) {
        write_numbers(out, bytes, length);
        return;
    }
    putc('"', out);
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte == '"' || byte == '\\')
            fprintf(out, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7f)
            fprintf(out, "\\u%04x", byte);
        else
            putc(byte, out);
    }
    putc('"', out);
}
