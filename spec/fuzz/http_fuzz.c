/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes what the HTTP client reads without libcurl's help: URLs, references of redirects, proxies
 * and the hosts that need none, and the head and body of an answer as the wire hands them over.
 *
 * The first byte says which; a reference, a list and a body come behind the first zero byte.
 */
#include "modules/http/private.h"
#include "modules/http/url.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the core and the engine, as far as they are called ---- */

static size_t blocks;

void *sl_alloc(sl_core *core, size_t size)
{
    (void)core;
    blocks++;
    return malloc(size);
}

void *sl_alloc_array(sl_core *core, size_t count, size_t size)
{
    (void)core;
    blocks++;
    return calloc(count, size);
}

void *sl_realloc(sl_core *core, void *block, size_t size)
{
    (void)core;
    blocks += block == NULL;
    return realloc(block, size);
}

void sl_free(sl_core *core, void *block)
{
    (void)core;
    blocks -= block != NULL;
    free(block);
}

/* Nothing is limited here. */

const char *sl_refuse_connection(sl_core *core, const char *host, unsigned port)
{
    (void)core, (void)host, (void)port;
    return NULL;
}

const char *sl_refuse_method(sl_core *core, const char *method)
{
    (void)core, (void)method;
    return NULL;
}

bool sl_count_request(sl_core *core)
{
    (void)core;
    return true;
}

bool sl_count_bytes(sl_core *core, size_t size)
{
    (void)core, (void)size;
    return true;
}

int64_t sl_now(sl_core *core)
{
    (void)core;
    return 1;
}

int64_t sl_now_update(sl_core *core)
{
    return sl_now(core);
}

void sl_timer_start(sl_core *core, sl_timer *timer, int64_t due)
{
    (void)core;
    timer->due = due;
}

void sl_http_list_move(sl_http_transfer *transfer, struct http_list *list)
{
    (void)transfer;
    (void)list;
}

void sl_http_admit(sl_http_transfer *transfer)
{
    transfer->state = SL_HTTP_WAITING;
}

void sl_http_finish(sl_http_transfer *transfer, enum sl_http_state state)
{
    transfer->state = state;
}

void sl_http_abort(sl_http_transfer *transfer)
{
    transfer->state = SL_HTTP_FAILED;
}

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* ---- URLs ---- */

static void check_target(sl_http_targets *targets, const char *text, size_t size)
{
    const char *reason = NULL;
    sl_http_target *target = sl_http_target_get(targets, text, size, &reason);
    if (!target) {
        check(reason != NULL);
        return;
    }
    check(target->host->name[0] != '\0' && target->host->port <= 65535);
    check(strpbrk(target->label, "?#") == NULL);
    check(target->secure == (strncasecmp(text, "https", 5) == 0));
    sl_http_target *again = sl_http_target_get(targets, text, size, &reason);
    check(again == target);
    sl_http_target_release(targets, again);
    sl_http_target_release(targets, target);
}

/** A redirect leads to http or https, and what says it stays at the origin stays there. */
static void check_join(sl_http_targets *targets, const char *base, const char *reference)
{
    size_t room = sl_http_join_room(base, reference);
    char *out = malloc(room);
    sl_http_join join = {0};
    if (!sl_http_join_urls(&join, base, reference, out, room)) {
        check(strncasecmp(out, "http://", 7) == 0 || strncasecmp(out, "https://", 8) == 0);
        const char *reason = NULL;
        sl_http_target *from = sl_http_target_get(targets, base, strlen(base), &reason);
        sl_http_target *to = sl_http_target_get(targets, out, strlen(out), &reason);
        if (from && to && join.same_origin)
            check(from->secure == to->secure && from->host->port == to->host->port &&
                  strcasecmp(from->host->name, to->host->name) == 0);
        sl_http_target_release(targets, from);
        sl_http_target_release(targets, to);
    }
    free(out);
}

static void fuzz_urls(const char *text, size_t size, const char *behind)
{
    sl_http_targets targets = {0};
    check_target(&targets, text, size);
    check_join(&targets, text, behind);
    check_join(&targets, "https://me:secret@host.test:8443/a/b?c#d", text);
    sl_http_targets_fini(&targets);
}

static void fuzz_proxy(const char *text, const char *behind)
{
    sl_http_proxy proxy;
    if (!sl_http_proxy_init(NULL, &proxy, text))
        check(proxy.url && proxy.host && proxy.port <= 65535);
    sl_http_proxy_fini(NULL, &proxy);
    sl_http_proxy_is_exempt(text, behind);
    sl_http_proxy_is_exempt(text, "192.0.2.7");
    sl_http_proxy_is_exempt(text, "[2001:db8::7]");
}

/* ---- answers ---- */

static enum sl_http_verdict feed_head(sl_http_transfer *transfer, const char *at, const char *end)
{
    enum sl_http_verdict verdict = SL_HTTP_GO_ON;
    while (at < end && verdict == SL_HTTP_GO_ON) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop + 1 : end;
        /* of its own, so that a read behind it is seen */
        char *line = malloc((size_t)(stop - at));
        memcpy(line, at, (size_t)(stop - at));
        verdict = sl_http_on_head(transfer, line, (size_t)(stop - at));
        free(line);
        at = stop;
    }
    return verdict;
}

static void feed_body(sl_http_transfer *transfer, const char *data, size_t size)
{
    for (unsigned turn = 0; turn < 4; turn++) {
        enum sl_http_verdict verdict = sl_http_on_body(transfer, data, size);
        if (verdict == SL_HTTP_ABORT)
            return;
        check(!transfer->max_response || transfer->received <= transfer->max_response);
        if (turn == 2)
            transfer->body.taken = transfer->body.size = 0;
    }
}

static void fuzz_answer(uint8_t way, const char *text, size_t size, const char *behind)
{
    sl_http_engine engine = {0};
    sl_http_transfer transfer = {0};
    sl_http_settings settings = {
        .streamed = way & 32, .decompress = way & 64, .max_response = way & 128 ? 100 : 0};
    sl_http_request request = {.method = way & 16 ? "HEAD" : "GET",
                               .url = "http://host.test/",
                               .url_size = 17,
                               .settings = &settings};
    check(!sl_http_transfer_start(&engine, &transfer, &request));
    if (feed_head(&transfer, text, text + size) != SL_HTTP_ABORT) {
        check(transfer.status >= 0 && transfer.status <= 999);
        if (transfer.head_complete)
            feed_body(&transfer, behind, strlen(behind));
    } else {
        check(transfer.failure.message[0] != '\0');
    }
    transfer.state = SL_HTTP_DONE;
    sl_http_transfer_stop(&transfer);
    sl_http_targets_fini(&engine.targets);
    sl_http_spare_free(&engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = malloc(size);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    size_t first = strlen(text);
    const char *behind = first < size - 1 ? text + first + 1 : "";
    switch (data[0] % 3) {
    case 0:
        fuzz_urls(text, first, behind);
        break;
    case 1:
        fuzz_proxy(text, behind);
        break;
    default:
        fuzz_answer(data[0], text, size - 1, behind);
    }
    free(text);
    check(blocks == 0);
    return 0;
}
