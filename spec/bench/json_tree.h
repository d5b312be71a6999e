/* SPDX-License-Identifier: MIT */
/* JSON text to a tree of C values, by our codec's engine: what a program without Lua would use. */
#ifndef SL_JSON_TREE_H
#define SL_JSON_TREE_H

#include "modules/json/engine.h"

typedef enum json_type {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_INTEGER,
    JSON_FLOAT,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
} json_type;

typedef struct json_node json_node;
struct json_node {
    json_type type;
    /** Of a member of an object; NUL-terminated, as strings are. */
    const char *key;
    union {
        int64_t integer;
        double number;
        struct {
            const char *text;
            size_t length;
        } string;
        json_node *first;
    } as;
    /** The next in the same array or object. */
    json_node *next;
};

/** Memory of one tree. It does not grow: the bench knows its documents. */
typedef struct json_arena {
    char *data;
    size_t used, capacity;
    /** For strings with escapes, on their way into the arena. */
    sl_json_buffer scratch;
} json_arena;

/** The tree of a text that a NUL follows; NULL when it is no JSON, or too large. Strict. The arena
 * is emptied first. */
const json_node *json_tree_read(json_arena *arena, const char *text, size_t length);
/** A member of an object; NULL where there is none. */
const json_node *json_tree_member(const json_node *object, const char *key);

#endif
