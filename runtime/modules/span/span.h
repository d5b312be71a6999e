/* SPDX-License-Identifier: MIT */
/* A span: a part of a trace, as a userdata. */
#ifndef SL_SPAN_H
#define SL_SPAN_H

#include "../../core/core.h"

/** What a span holds of Lua: its user values. */
enum {
    /** The outermost span of this program, itself one. */
    SPAN_ROOT = 1,
    SPAN_EXPORTER,
    SPAN_NAME,
    /** tracestate, or nil. */
    SPAN_STATE,
    /** What the task worked for before it entered. */
    SPAN_BEFORE,
    /** name, value, name, value, ...; `n`. */
    SPAN_ATTRIBUTES,
    /** Of a root: the spans inside of it. */
    SPAN_PARTS,
    /** What else somebody has noted: a table, or nil. */
    SPAN_REST,
    SPAN_VALUES = SPAN_REST,
};

typedef struct sl_trace_span {
    /** Of the trace; its own; of the span around it, 0: none. */
    uint64_t trace[2], id, parent;
    /** As task.now() tells it; seconds, below 0 while it goes on. */
    double started, duration;
    /** Of a root: the wall clock at its start, seconds since 1970. */
    double started_at;
    /** As OTLP numbers them. */
    int kind;
    int parts;
    bool is_sampled, is_entered;
} sl_trace_span;

enum {
    SPAN_TRACE_DIGITS = 32,
    SPAN_DIGITS = 16,
};

/** Writes 16 hexadecimal digits. */
void sl_span_write_id(char *out, uint64_t id);

/**
 * Writes the span at index 1 as OTLP/HTTP takes it, and pushes the text. At index 2: a function
 * that gives what follows the attributes of a span with a state, or of which something was noted;
 * at 3: one that gives a value as OTLP has it.
 */
int sl_span_json(lua_State *L, const sl_trace_span *self);

#endif
