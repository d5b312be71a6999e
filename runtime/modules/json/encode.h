/* SPDX-License-Identifier: MIT */
/* What the files of the encoder share. */
#ifndef SL_JSON_ENCODE_H
#define SL_JSON_ENCODE_H

#include "json.h"

typedef enum sl_json_shape {
    /** A table whose keys have come as 1, 2, 3 so far. */
    SL_JSON_ARRAY,
    /** A table whose keys are known to be 1 to `count`, but come in another order. */
    SL_JSON_INDEXED,
    SL_JSON_OBJECT,
    /** An object by way of `keys`. */
    SL_JSON_SORTED,
} sl_json_shape;

typedef struct sl_json_key {
    const char *text;
    size_t length;
} sl_json_key;

/** An open table. On Lua's stack it has two slots: the table; and its key, or the sorted keys. */
typedef struct sl_json_frame {
    sl_json_shape shape;
    /** The table's identity. */
    const void *table;
    /** Members begun; and all of them, for INDEXED and SORTED. */
    lua_Integer index, count;
    /** In byte order; owned by the userdata in the second slot. SORTED only. */
    const sl_json_key *keys;
} sl_json_frame;

enum { SL_JSON_ENCODE_FRAMES = 24 };

typedef struct sl_json_encoder {
    lua_State *L;
    sl_json_buffer *out;
    sl_json_frame *frames;
    size_t depth, capacity, max_depth;
    /** Of Lua's stack: below the first table, and the userdata with the frames when many. */
    int base, frames_slot;
    /** The identity of the metatable that marks arrays. */
    const void *array_metatable;
    bool strict_utf8, sorted, pretty;
    sl_json_frame first[SL_JSON_ENCODE_FRAMES];
} sl_json_encoder;

typedef enum sl_json_step {
    /** The reason is on top of Lua's stack. */
    SL_JSON_FAILED = -1,
    /** A whole value has been written and is off the stack. */
    SL_JSON_WRITTEN,
    /** The next value to write is on top of the stack. */
    SL_JSON_LOADED,
} sl_json_step;

static inline int sl_json_table_slot(const sl_json_encoder *e, size_t depth)
{
    return e->base + (int)depth * 2 - 1;
}

/** Encodes the value on top of the stack; takes it off, or adds the reason. */
sl_json_step sl_json_encoder_run(sl_json_encoder *e);

/** Fails at the value whose path the open frames make: their message is "path: format". */
sl_json_step sl_json_encode_fault(sl_json_encoder *e, const char *format, ...);
/** Fails at the innermost open table itself, as neither an array nor an object. */
sl_json_step sl_json_shape_fault(sl_json_encoder *e);
/** The same for what is no JSON at all: the value on top of the stack. */
sl_json_step sl_json_type_fault(sl_json_encoder *e);

/** Whether the table's keys are 1 to *count, in whatever order. */
bool sl_json_is_sequence(lua_State *L, int table, lua_Integer *count);
/**
 * Turns the innermost frame into SL_JSON_SORTED: replaces its second slot, which is on top of the
 * stack. Fails where a key is no string.
 */
sl_json_step sl_json_sort_keys(sl_json_encoder *e);

#endif
