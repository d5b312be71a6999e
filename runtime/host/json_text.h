/* SPDX-License-Identifier: MIT */
/* The little JSON that host functions speak with Lua: arguments in, one value out. */
#ifndef SL_HOST_JSON_TEXT_H
#define SL_HOST_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/** One argument: a text, a number, or neither (null, true, false). */
typedef struct json_argument {
    /** NUL-terminated, to be freed; NULL where it is no string. */
    char *text;
    size_t length;
    long number;
} json_argument;

/**
 * Reads the array of arguments that a host function is given; arguments beyond `most` are dropped,
 * those that are missing are zeroed. Arrays and objects in it are not for our functions: false.
 */
bool json_text_read(const char *json, json_argument *arguments, int most);

/** Frees what json_text_read() made. */
void json_text_free(json_argument *arguments, int count);

/** Writes bytes as a JSON string; where they are no UTF-8, as an array of numbers. */
void json_text_write(FILE *out, const char *bytes, size_t length);

#endif
