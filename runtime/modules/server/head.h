/* SPDX-License-Identifier: MIT */
/*
 * The head of a request. A strict scan of the raw bytes finds its end and refuses what llhttp 8.1.0
 * lets pass (bare CR or LF, control bytes, empty names, two spaces in the request line); llhttp
 * then splits it, and the rules that decide where the body ends are checked here.
 */
#ifndef SL_SERVER_HEAD_H
#define SL_SERVER_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    /** Bytes of a request target; more is 414. */
    SL_TARGET_MAX = 8192,
    /** Bytes of a head; more is 431. Offsets fit into 16 bits. */
    SL_HEAD_MAX = 32768,
    /** Fields of a head; more is 431. */
    SL_FIELDS_MAX = 100,
};

/** How far the scan has come; zeroed is the start. */
typedef struct sl_head_scan {
    /** Where in the bytes the next unread one is, where the request line begins (not behind it),
     * and its part. */
    uint32_t position, start, part;
    uint16_t fields;
    uint8_t state;
    /** Empty lines before the request line; RFC 9112, 2.2 lets one pass. */
    uint8_t blank;
} sl_head_scan;

/**
 * Goes on over `bytes`, which hold everything since the scan began and may have grown.
 * Returns 0 when more is needed, the length of the head when it is complete (scan->start is what
 * to skip at its front), or minus the status to refuse it with.
 */
int sl_head_scan_run(sl_head_scan *scan, const char *bytes, size_t length);

/** A part of the head: offset and length. */
typedef struct sl_span {
    uint16_t at, length;
} sl_span;

/** A field of the head. */
typedef struct sl_field {
    sl_span name, value;
} sl_field;

typedef struct sl_head {
    /** Static text. */
    const char *method;
    sl_span target;
    /** The value of X-Request-Id where it came once and is short and plain; else of length 0. */
    sl_span request_id;
    /** Valid unless chunked; 0 without a body. */
    uint64_t content_length;
    bool chunked, keep_alive, expects_continue, is_head;
    /** The minor version: 0 or 1. */
    uint8_t minor;
    uint16_t count;
    /** As many; SL_FIELDS_MAX while it is parsed. The owner is whoever gave them. */
    sl_field *fields;
} sl_head;

/**
 * Splits a complete head and checks what it means. Returns 0, or the status to refuse it with.
 * @param fields  room for SL_FIELDS_MAX of them.
 * @param counted how many the scan counted.
 */
int sl_head_parse(sl_head *head, sl_field *fields, const char *bytes, size_t length,
                  unsigned counted);

/** Whether this byte may stand in a name (RFC 9110, token), or in a value. */
bool sl_head_is_token(unsigned char byte);
bool sl_head_is_value(unsigned char byte);

#endif
