/* SPDX-License-Identifier: MIT */
/* Replies: hiredis reads them, and they are kept as records, one after the other in one block. */
#include "private.h"

#include <string.h>

enum {
    /* Type and number; not aligned, so copied. */
    RECORD_HEAD = 1 + sizeof(long long),
};

/* ---- bytes that grow ---- */

bool sl_redis_bytes_add(sl_core *core, sl_redis_bytes *bytes, const void *data, size_t length)
{
    if (bytes->capacity - bytes->size < length) {
        size_t capacity = bytes->capacity ? bytes->capacity : 256;
        while (capacity - bytes->size < length && capacity <= SIZE_MAX / 2)
            capacity *= 2;
        char *grown =
            capacity - bytes->size < length ? NULL : sl_realloc(core, bytes->data, capacity);
        if (!grown)
            return false;
        bytes->data = grown;
        bytes->capacity = capacity;
    }
    memcpy(bytes->data + bytes->size, data, length);
    bytes->size += length;
    return true;
}

void sl_redis_bytes_free(sl_core *core, sl_redis_bytes *bytes)
{
    sl_free(core, bytes->data);
    *bytes = (sl_redis_bytes){0};
}

/* ---- records ---- */

static bool record_add(sl_redis *c, char type, long long number, const char *bytes, size_t length)
{
    char head[RECORD_HEAD];
    if (!c->target)
        return true;
    head[0] = type;
    memcpy(head + 1, &number, sizeof number);
    return sl_redis_bytes_add(c->core, c->target, head, sizeof head) &&
           (length == 0 || sl_redis_bytes_add(c->core, c->target, bytes, length));
}

sl_redis_record sl_redis_record_read(const sl_redis_bytes *reply, size_t *position)
{
    sl_redis_record record = {.type = reply->data[*position]};
    memcpy(&record.number, reply->data + *position + 1, sizeof record.number);
    *position += RECORD_HEAD;
    if (record.type == '$' || record.type == '+' || record.type == '-') {
        record.bytes = reply->data + *position;
        *position += (size_t)record.number;
    }
    return record;
}

/* ---- what hiredis calls: anything but NULL means it went well ---- */

static sl_redis *connection_of(const redisReadTask *task)
{
    return task->privdata;
}

static void *on_reply_string(const redisReadTask *task, char *bytes, size_t length)
{
    sl_redis *c = connection_of(task);
    char type = '$';
    if (task->type == REDIS_REPLY_STATUS)
        type = '+';
    else if (task->type == REDIS_REPLY_ERROR)
        type = '-';
    return record_add(c, type, (long long)length, bytes, length) ? c : NULL;
}

static void *on_reply_array(const redisReadTask *task, int count)
{
    sl_redis *c = connection_of(task);
    return record_add(c, '*', count, NULL, 0) ? c : NULL;
}

static void *on_reply_integer(const redisReadTask *task, long long number)
{
    sl_redis *c = connection_of(task);
    return record_add(c, ':', number, NULL, 0) ? c : NULL;
}

static void *on_reply_null(const redisReadTask *task)
{
    sl_redis *c = connection_of(task);
    return record_add(c, '_', 0, NULL, 0) ? c : NULL;
}

static void on_reply_free(void *object)
{
    (void)object;
}

/* ---- reading ---- */

int sl_redis_reader_open(sl_redis *c)
{
    c->functions = (redisReplyObjectFunctions){
        .createString = on_reply_string,
        .createArray = on_reply_array,
        .createInteger = on_reply_integer,
        .createNil = on_reply_null,
        .freeObject = on_reply_free,
    };
    c->reader = redisReaderCreateWithFunctions(&c->functions);
    if (!c->reader)
        return -1;
    c->reader->privdata = c;
    return 0;
}

/** One more reply of the greeting, which must be no error. */
static void greeting_reply(sl_redis *c)
{
    size_t position = 0;
    sl_redis_record record = sl_redis_record_read(&c->greeting_reply, &position);
    if (record.type == '-') {
        sl_redis_fail(c, "RedisError", "%.*s", (int)record.number, record.bytes);
        return;
    }
    c->greeting_reply.size = 0;
    if (--c->greeting_left == 0)
        sl_redis_welcomed(c);
}

static void choose_target(sl_redis *c)
{
    sl_redis_request *first = c->pending.first;
    c->target = NULL;
    if (c->greeting_left > 0)
        c->target = &c->greeting_reply;
    else if (first && first->waits)
        c->target = &first->reply;
}

/** A reply that nobody asked for: the server says why it ends, or is not in step. */
static void unasked_reply(sl_redis *c)
{
    size_t position = 0;
    sl_redis_record record = sl_redis_record_read(&c->greeting_reply, &position);
    if (record.type == '-')
        sl_redis_fail(c, "RedisError", "%.*s", (int)record.number, record.bytes);
    else
        sl_redis_fail(c, "ProtocolError", "the server sent a reply that nobody asked for");
}

static void fail_reader(sl_redis *c)
{
    if (c->reader->err == REDIS_ERR_OOM)
        sl_redis_fail(c, "ConnectError", "not enough memory for a reply");
    else
        sl_redis_fail(c, "ProtocolError", "what came is no reply: %s", c->reader->errstr);
}

/** Whether the next reply is one to the greeting or to a request that has left. */
static bool is_reply_due(const sl_redis *c)
{
    return c->greeting_left > 0 || (c->pending.first && sl_redis_is_sent(c, c->pending.first));
}

/** Reads one reply, if it is whole: 1, 0, or -1 when the connection failed over it. */
static int read_reply(sl_redis *c)
{
    void *reply = NULL;
    bool due = is_reply_due(c);
    choose_target(c);
    if (!due)
        c->target = &c->greeting_reply;
    if (redisReaderGetReply(c->reader, &reply) != REDIS_OK)
        fail_reader(c);
    else if (!reply && (due || c->reader->len == c->reader->pos))
        return 0;
    else if (!reply)
        sl_redis_fail(c, "ProtocolError", "the server sent what nobody asked for");
    else if (!due)
        unasked_reply(c);
    else if (c->greeting_left > 0)
        greeting_reply(c);
    else
        sl_redis_requests_reply(c);
    return c->state == SL_REDIS_CLOSED ? -1 : 1;
}

bool sl_redis_reader_feed(sl_redis *c, const char *bytes, size_t length)
{
    c->heard += length;
    c->incoming += length;
    if (c->incoming > c->server->max_reply) {
        sl_redis_fail(c, "ProtocolError", "a reply of more than %zu bytes (max_reply)",
                      c->server->max_reply);
        return false;
    }
    if (redisReaderFeed(c->reader, bytes, length) != REDIS_OK) {
        sl_redis_fail(c, "ConnectError", "not enough memory for a reply");
        return false;
    }
    int got;
    while ((got = read_reply(c)) > 0)
        c->incoming = c->reader->len - c->reader->pos;
    return got == 0;
}
