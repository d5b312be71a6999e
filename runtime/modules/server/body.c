/* SPDX-License-Identifier: MIT */
/* A strict reader of request bodies: by length or chunked, extensions and trailers thrown away. */
#include "body.h"
#include "head.h"

enum {
    /* 16^15 - 1 bytes: what cannot overflow. */
    SIZE_DIGITS_MAX = 15,
};

enum body_state {
    BODY_LENGTH,
    BODY_SIZE,
    BODY_EXTENSION,
    BODY_SIZE_LF,
    BODY_CHUNK,
    BODY_CHUNK_CR,
    BODY_CHUNK_LF,
    BODY_TRAILER,
    BODY_TRAILER_NAME,
    BODY_TRAILER_VALUE,
    BODY_TRAILER_LF,
    BODY_LAST_LF,
    BODY_DONE,
    BODY_BROKEN,
};

void sl_body_init(sl_body *body, bool chunked, uint64_t length)
{
    *body = (sl_body){.left = chunked ? 0 : length};
    if (chunked)
        body->state = BODY_SIZE;
    else
        body->state = length ? BODY_LENGTH : BODY_DONE;
}

bool sl_body_ended(const sl_body *body)
{
    return body->state == BODY_DONE;
}

static int hex_value(unsigned char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/** A byte of the line with a chunk's size. Every byte that breaks a rule gives BODY_BROKEN. */
static uint8_t size_byte(sl_body *body, unsigned char byte)
{
    int digit = hex_value(byte);
    if (digit >= 0) {
        if (body->digits == SIZE_DIGITS_MAX)
            return BODY_BROKEN;
        body->digits++;
        body->left = body->left * 16 + (uint64_t)digit;
        return BODY_SIZE;
    }
    if (body->digits == 0)
        return BODY_BROKEN;
    if (byte == '\r')
        return BODY_SIZE_LF;
    return byte == ';' ? BODY_EXTENSION : BODY_BROKEN;
}

static uint8_t size_line_end(sl_body *body)
{
    body->digits = 0;
    return body->left ? BODY_CHUNK : BODY_TRAILER;
}

static uint8_t trailer_byte(const sl_body *body, unsigned char byte)
{
    switch (body->state) {
    case BODY_TRAILER:
        if (byte == '\r')
            return BODY_LAST_LF;
        return sl_head_is_token(byte) ? BODY_TRAILER_NAME : BODY_BROKEN;
    case BODY_TRAILER_NAME:
        if (byte == ':')
            return BODY_TRAILER_VALUE;
        return sl_head_is_token(byte) ? BODY_TRAILER_NAME : BODY_BROKEN;
    default: /* BODY_TRAILER_VALUE */
        if (byte == '\r')
            return BODY_TRAILER_LF;
        return sl_head_is_value(byte) ? BODY_TRAILER_VALUE : BODY_BROKEN;
    }
}

/** The state after a byte that is no content. */
static uint8_t framing_byte(sl_body *body, unsigned char byte)
{
    switch (body->state) {
    case BODY_SIZE:
        return size_byte(body, byte);
    case BODY_EXTENSION:
        if (byte == '\r')
            return BODY_SIZE_LF;
        return sl_head_is_value(byte) ? BODY_EXTENSION : BODY_BROKEN;
    case BODY_SIZE_LF:
        return byte == '\n' ? size_line_end(body) : BODY_BROKEN;
    case BODY_CHUNK_CR:
        return byte == '\r' ? BODY_CHUNK_LF : BODY_BROKEN;
    case BODY_CHUNK_LF:
        return byte == '\n' ? BODY_SIZE : BODY_BROKEN;
    case BODY_TRAILER_LF:
        return byte == '\n' ? BODY_TRAILER : BODY_BROKEN;
    case BODY_LAST_LF:
        return byte == '\n' ? BODY_DONE : BODY_BROKEN;
    default:
        return trailer_byte(body, byte);
    }
}

/** Extensions and trailers have a limit of their own: they are no content, but they cost. */
static bool is_overhead(uint8_t state)
{
    return state == BODY_EXTENSION || (state >= BODY_TRAILER && state <= BODY_TRAILER_LF);
}

static sl_body_result take_content(sl_body *body, const char *bytes, size_t length,
                                   sl_body_step *step)
{
    size_t rest = length - step->used;
    step->piece = bytes + step->used;
    step->length = rest < body->left ? rest : (size_t)body->left;
    step->used += step->length;
    body->left -= step->length;
    if (body->left == 0)
        body->state = body->state == BODY_CHUNK ? BODY_CHUNK_CR : BODY_DONE;
    return SL_BODY_PIECE;
}

sl_body_result sl_body_read(sl_body *body, const char *bytes, size_t length, sl_body_step *step)
{
    *step = (sl_body_step){0};
    while (body->state != BODY_DONE && body->state != BODY_BROKEN && step->used < length) {
        if (body->state == BODY_LENGTH || body->state == BODY_CHUNK)
            return take_content(body, bytes, length, step);
        body->state = framing_byte(body, (unsigned char)bytes[step->used++]);
        if (is_overhead(body->state) && ++body->overhead > SL_BODY_OVERHEAD_MAX)
            body->state = BODY_BROKEN;
    }
    if (body->state == BODY_BROKEN)
        return SL_BODY_BAD;
    return body->state == BODY_DONE ? SL_BODY_END : SL_BODY_MORE;
}
