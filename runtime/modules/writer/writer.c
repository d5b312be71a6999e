/* SPDX-License-Identifier: MIT */
/* The writer: a ring of records between the core's thread and the one that writes. */
#include "writer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    /* Records given to a sink at once. */
    BATCH = 64,
    /* SQLite is called on it; untouched pages cost nothing. */
    STACK = 512 << 10,
    /* Microseconds that the thread lets records gather after it wrote some: to wake it for each
     * line costs more than the line. */
    NAP = 1000,
    /* Milliseconds that what is queued has when the instance ends, and what a sink has to obey. */
    FLUSH_TIME = 1000,
    STOP_TIME = 200,
};

/** Before the bytes of each record in the ring; the next one begins at a multiple of its alignment.
 */
typedef struct ring_header {
    sl_sink *sink; /* NULL: the rest of the ring up to its end is unused */
    size_t length;
    unsigned tag;
} ring_header;

struct sl_writer {
    sl_close_hook hook;
    sl_core *core;
    /** Bytes of the ring; 0: the host wants no thread. */
    size_t size;
    char *ring;
    pthread_t thread;
    pthread_mutex_t lock;
    /** The thread waits for work on the first, who ends it for what it did on the second. */
    pthread_cond_t has_work, has_moved;
    /* under the lock, from here */
    size_t head, tail, used;
    /** Records, ever; when `written` comes to `wanted`, the core's thread is told. */
    uint64_t pushed, written, wanted;
    bool is_idle, is_napping, is_draining, is_ending, is_abandoned, has_ended;
    /** Those that were given up by their owners. */
    sl_sink *closing;
    /* of the core's thread alone */
    bool has_thread;
    sl_sink *sinks;
    sl_flush *flushes;
    sl_io io;
    /** Tells the thread's waits that time is up; -1 without a thread. */
    int stop_fd;
};

/* ---- lists ---- */

static void sink_link(sl_sink **list, sl_sink *sink)
{
    sink->next = *list;
    sink->link = list;
    if (sink->next)
        sink->next->link = &sink->next;
    *list = sink;
}

static void sink_unlink(sl_sink *sink)
{
    *sink->link = sink->next;
    if (sink->next)
        sink->next->link = sink->link;
    sink->next = NULL;
    sink->link = NULL;
}

/* ---- the ring ---- */

static size_t ring_step(size_t length)
{
    size_t mask = _Alignof(ring_header) - 1;
    return (sizeof(ring_header) + length + mask) & ~mask;
}

/** Where a record of `step` bytes goes, wrapping first where it must; NULL: no room. */
static ring_header *ring_reserve(sl_writer *w, size_t step)
{
    size_t behind = w->size - w->tail;
    size_t skipped = step > behind ? behind : 0;
    if (step > w->size || w->used + skipped + step > w->size)
        return NULL;
    if (skipped >= sizeof(ring_header))
        ((ring_header *)(void *)(w->ring + w->tail))->sink = NULL;
    if (skipped)
        w->tail = 0;
    w->used += skipped + step;
    ring_header *header = (ring_header *)(void *)(w->ring + w->tail);
    w->tail += step;
    if (w->tail == w->size)
        w->tail = 0;
    return header;
}

/** The first record, past what was skipped at the end of the ring. Only with something used. */
static ring_header *ring_first(sl_writer *w)
{
    size_t behind = w->size - w->head;
    ring_header *header = (ring_header *)(void *)(w->ring + w->head);
    if (behind >= sizeof(ring_header) && header->sink)
        return header;
    w->used -= behind;
    w->head = 0;
    return (ring_header *)(void *)w->ring;
}

/** Takes records of one sink that follow each other; returns the bytes they take. */
static size_t ring_take(sl_writer *w, sl_record *records, size_t *count)
{
    ring_header *header = ring_first(w);
    const sl_sink *sink = header->sink;
    size_t at = w->head, taken = 0;
    for (*count = 0; *count < BATCH && taken < w->used; ++*count) {
        if (w->size - at < sizeof *header)
            break;
        header = (ring_header *)(void *)(w->ring + at);
        if (header->sink != sink)
            break;
        records[*count] = (sl_record){(const char *)(header + 1), header->length, header->tag};
        taken += ring_step(header->length);
        at += ring_step(header->length);
    }
    return taken;
}

static void ring_release(sl_writer *w, size_t bytes)
{
    w->head += bytes;
    w->used -= bytes;
    if (w->head == w->size)
        w->head = 0;
}

/* ---- the thread ---- */

static void tell_core(sl_writer *w)
{
    const uint64_t one = 1;
    ssize_t told = write(w->io.fd, &one, sizeof one);
    (void)told; /* a full counter is news too */
}

/** Called, and returns, with the lock. */
static void write_batch(sl_writer *w)
{
    sl_record records[BATCH];
    size_t count;
    size_t bytes = ring_take(w, records, &count);
    sl_sink *sink = ((ring_header *)(void *)(w->ring + w->head))->sink;
    uint64_t dropped = sink->untold;
    sink->untold = 0;
    pthread_mutex_unlock(&w->lock);
    if (dropped && sink->type->tell_dropped)
        sink->type->tell_dropped(sink, dropped);
    sink->type->write(sink, records, count);
    pthread_mutex_lock(&w->lock);
    ring_release(w, bytes);
    sink->queued -= count;
    w->written += count;
    if (w->is_draining)
        pthread_cond_signal(&w->has_moved);
    if (w->wanted && w->written >= w->wanted) {
        w->wanted = 0;
        tell_core(w);
    }
}

/** Called, and returns, with the lock. */
static void close_sinks(sl_writer *w)
{
    sl_sink *sink = w->closing;
    while (sink) {
        if (sink->queued > 0) {
            sink = sink->next;
            continue;
        }
        sink_unlink(sink);
        pthread_mutex_unlock(&w->lock);
        if (sink->untold && sink->type->tell_dropped)
            sink->type->tell_dropped(sink, sink->untold);
        sink->type->close(sink);
        pthread_mutex_lock(&w->lock);
        sink = w->closing;
    }
}

static void close_descriptors(sl_writer *w)
{
    if (w->io.fd >= 0)
        close(w->io.fd);
    if (w->stop_fd >= 0)
        close(w->stop_fd);
    w->io.fd = w->stop_fd = -1;
}

static void free_writer(sl_writer *w)
{
    pthread_cond_destroy(&w->has_work);
    pthread_cond_destroy(&w->has_moved);
    pthread_mutex_destroy(&w->lock);
    close_descriptors(w);
    free(w->ring);
    free(w);
}

static struct timespec time_after(long microseconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += microseconds / 1000000;
    until.tv_nsec += microseconds % 1000000 * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    return until;
}

/** Naps first, which pushes do not end; with nothing to do afterwards it sleeps until the next one.
 */
static void wait_for_work(sl_writer *w)
{
    struct timespec until = time_after(NAP);
    w->is_napping = true;
    pthread_cond_timedwait(&w->has_work, &w->lock, &until);
    w->is_napping = false;
    if (w->used > 0 || w->closing || w->is_ending)
        return;
    w->is_idle = true;
    pthread_cond_wait(&w->has_work, &w->lock);
    w->is_idle = false;
}

static void *writer_run(void *user)
{
    sl_writer *w = user;
    pthread_mutex_lock(&w->lock);
    while (w->used > 0 || w->closing || !w->is_ending) {
        if (w->used > 0)
            write_batch(w);
        close_sinks(w);
        if (w->used == 0 && !w->is_ending)
            wait_for_work(w);
    }
    w->has_ended = true;
    bool is_abandoned = w->is_abandoned;
    pthread_cond_signal(&w->has_moved);
    pthread_mutex_unlock(&w->lock);
    if (is_abandoned)
        free_writer(w);
    return NULL;
}

static int start_thread(sl_writer *w)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    sigfillset(&all); /* signals are the host's, and its thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&w->thread, &attributes, writer_run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failure;
}

/* ---- the core's thread ---- */

static void tell_notices(sl_writer *w)
{
    for (sl_sink *sink = w->sinks; sink; sink = sink->next)
        if (atomic_exchange(&sink->has_notice, false) && sink->type->on_notice)
            sink->type->on_notice(sink, w->core);
}

static void flush_unlink(sl_flush *flush)
{
    *flush->link = flush->next;
    if (flush->next)
        flush->next->link = flush->link;
    flush->next = NULL;
    flush->link = NULL;
}

/** Asks the thread to tell of the next wait that is over, or has the descriptor keep nobody up. */
static void look_at_flushes(sl_writer *w)
{
    pthread_mutex_lock(&w->lock);
    uint64_t written = w->written;
    while (w->flushes && w->flushes->target <= written) {
        sl_flush *flush = w->flushes;
        flush_unlink(flush);
        pthread_mutex_unlock(&w->lock);
        flush->on_done(flush);
        pthread_mutex_lock(&w->lock);
    }
    w->wanted = w->flushes ? w->flushes->target : 0;
    pthread_mutex_unlock(&w->lock);
    if (!w->flushes)
        sl_io_park(w->core, &w->io);
}

static void on_writer_news(sl_io *io, unsigned events)
{
    (void)events;
    sl_writer *w = (sl_writer *)(void *)((char *)io - offsetof(sl_writer, io));
    uint64_t count;
    ssize_t got = read(io->fd, &count, sizeof count);
    (void)got;
    tell_notices(w);
    look_at_flushes(w);
}

/** Once; a failure leaves the writer without a thread, as a host may want it. */
static bool has_started(sl_writer *w)
{
    if (w->has_thread || w->size == 0)
        return w->has_thread;
    w->ring = malloc(w->size);
    w->io.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->ring && w->io.fd >= 0 && w->stop_fd >= 0 && sl_io_watch(w->core, &w->io, SL_READ) == 0 &&
        start_thread(w) == 0) {
        sl_io_park(w->core, &w->io);
        w->has_thread = true;
        return true;
    }
    sl_io_watch(w->core, &w->io, 0);
    close_descriptors(w);
    w->size = 0;
    return false;
}

/** Waits until nothing is queued, or until the thread has ended; with the lock. */
static bool wait_for_thread(sl_writer *w, const bool *has_ended, long milliseconds)
{
    struct timespec until = time_after(milliseconds * 1000);
    while (has_ended ? !*has_ended : w->used > 0)
        if (pthread_cond_timedwait(&w->has_moved, &w->lock, &until) != 0)
            return false;
    return true;
}

static void stop_waits(sl_writer *w)
{
    const uint64_t one = 1;
    ssize_t told = write(w->stop_fd, &one, sizeof one);
    (void)told;
}

/** Has what is queued written, as far as there is time. */
static void drain(sl_writer *w)
{
    pthread_mutex_lock(&w->lock);
    w->is_draining = true;
    pthread_cond_signal(&w->has_work);
    if (!wait_for_thread(w, NULL, FLUSH_TIME)) {
        stop_waits(w);
        wait_for_thread(w, NULL, STOP_TIME);
    }
    pthread_mutex_unlock(&w->lock);
    stop_waits(w); /* no more waits in what is left to say */
}

/** True: it has ended and was joined. False: the writer is the thread's, which frees it. */
static bool end_thread(sl_writer *w)
{
    pthread_mutex_lock(&w->lock);
    w->is_ending = true;
    pthread_cond_signal(&w->has_work);
    bool ended = wait_for_thread(w, &w->has_ended, STOP_TIME);
    w->is_abandoned = !ended;
    pthread_mutex_unlock(&w->lock);
    if (ended)
        pthread_join(w->thread, NULL);
    else
        pthread_detach(w->thread);
    return ended;
}

static void on_writer_close(sl_close_hook *hook)
{
    sl_writer *w = (sl_writer *)(void *)((char *)hook - offsetof(sl_writer, hook));
    while (w->flushes)
        sl_flush_stop(w->flushes);
    if (w->has_thread) {
        drain(w);
        tell_notices(w);
        sl_io_watch(w->core, &w->io, 0);
    }
    while (w->sinks)
        sl_sink_close(w->sinks);
    if (!w->has_thread || end_thread(w))
        free_writer(w);
}

static void init_locks(sl_writer *w)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->has_work, &monotonic);
    pthread_cond_init(&w->has_moved, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&w->lock, NULL);
}

static sl_writer *find_writer(sl_core *core)
{
    sl_close_hook *hook = sl_close_hook_find(core, on_writer_close);
    return hook ? (sl_writer *)(void *)((char *)hook - offsetof(sl_writer, hook)) : NULL;
}

sl_writer *sl_writer_of(sl_core *core)
{
    sl_writer *w = find_writer(core);
    if (w)
        return w;
    w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->core = core;
    w->size = sl_writer_queue(core) & ~(_Alignof(ring_header) - 1);
    w->io = (sl_io){.fd = -1, .on_ready = on_writer_news};
    w->stop_fd = -1;
    init_locks(w);
    w->hook.on_close = on_writer_close;
    sl_close_hook_add(core, &w->hook);
    return w;
}

/* ---- sinks ---- */

void sl_writer_add(sl_writer *writer, sl_sink *sink, sl_sink **owner)
{
    sink->writer = writer;
    sink->owner = owner;
    *owner = sink;
    sink_link(&writer->sinks, sink);
}

static bool push_queued(sl_sink *sink, const sl_record *record)
{
    sl_writer *w = sink->writer;
    pthread_mutex_lock(&w->lock);
    ring_header *header = ring_reserve(w, ring_step(record->length));
    if (!header) {
        sink->dropped++;
        sink->untold++;
    } else {
        *header = (ring_header){sink, record->length, record->tag};
        memcpy(header + 1, record->bytes, record->length);
        sink->queued++;
        w->pushed++;
        if (w->is_idle || (w->is_napping && w->used > w->size / 4))
            pthread_cond_signal(&w->has_work);
    }
    pthread_mutex_unlock(&w->lock);
    return header != NULL;
}

/** Whether the thread has nothing of it. */
static bool is_at_rest(sl_sink *sink)
{
    if (!sink->writer->has_thread)
        return true;
    pthread_mutex_lock(&sink->writer->lock);
    bool at_rest = sink->queued == 0 && sink->untold == 0;
    pthread_mutex_unlock(&sink->writer->lock);
    return at_rest;
}

bool sl_sink_push(sl_sink *sink, const sl_record *record)
{
    sl_record rest = *record;
    if (rest.length > 0 && sink->type->write_now && is_at_rest(sink)) {
        size_t done = sink->type->write_now(sink, record);
        if (done == record->length)
            return true;
        rest.bytes += done;
        rest.length -= done;
    }
    if (has_started(sink->writer))
        return push_queued(sink, &rest);
    uint64_t failed = atomic_load(&sink->failed);
    sink->type->write(sink, &rest, 1);
    return atomic_load(&sink->failed) == failed;
}

void sl_sink_close(sl_sink *sink)
{
    if (!sink)
        return;
    sl_writer *w = sink->writer;
    *sink->owner = NULL;
    sink_unlink(sink);
    if (!w->has_thread) {
        sink->type->close(sink);
        return;
    }
    pthread_mutex_lock(&w->lock);
    sink_link(&w->closing, sink);
    pthread_cond_signal(&w->has_work);
    pthread_mutex_unlock(&w->lock);
}

size_t sl_sink_queued(sl_sink *sink)
{
    pthread_mutex_lock(&sink->writer->lock);
    size_t queued = sink->queued;
    pthread_mutex_unlock(&sink->writer->lock);
    return queued;
}

uint64_t sl_sink_dropped(sl_sink *sink)
{
    pthread_mutex_lock(&sink->writer->lock);
    uint64_t dropped = sink->dropped;
    pthread_mutex_unlock(&sink->writer->lock);
    return dropped;
}

bool sl_writer_reopen(sl_core *core)
{
    sl_writer *w = find_writer(core);
    bool found = false;
    for (sl_sink *sink = w ? w->sinks : NULL; sink; sink = sink->next)
        found |= sink->type->reopen && sink->type->reopen(sink);
    return found;
}

/* ---- waiting for what was pushed ---- */

bool sl_writer_flush(sl_writer *writer, sl_flush *flush)
{
    if (!writer->has_thread)
        return false;
    pthread_mutex_lock(&writer->lock);
    flush->target = writer->pushed;
    bool pending = writer->written < writer->pushed;
    if (pending && !writer->wanted)
        writer->wanted = writer->pushed;
    if (pending && writer->is_napping)
        pthread_cond_signal(&writer->has_work);
    pthread_mutex_unlock(&writer->lock);
    if (!pending || sl_io_watch(writer->core, &writer->io, SL_READ) != 0)
        return false;
    sl_flush **end = &writer->flushes;
    while (*end)
        end = &(*end)->next;
    flush->next = NULL;
    flush->link = end;
    *end = flush;
    return true;
}

void sl_flush_stop(sl_flush *flush)
{
    if (flush->link)
        flush_unlink(flush);
}

/* ---- what sinks call ---- */

int sl_sink_stop_fd(sl_sink *sink)
{
    return sink->writer->stop_fd;
}

void sl_sink_failed(sl_sink *sink, uint64_t count)
{
    atomic_fetch_add(&sink->failed, count);
}

void sl_sink_notify(sl_sink *sink)
{
    sl_writer *w = sink->writer;
    if (atomic_exchange(&sink->has_notice, true))
        return;
    if (w->stop_fd >= 0)
        tell_core(w);
    else if (atomic_exchange(&sink->has_notice, false) && sink->type->on_notice)
        sink->type->on_notice(sink, w->core);
}
