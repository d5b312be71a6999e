/* SPDX-License-Identifier: MIT */
/* Log lines to a file or a descriptor, on the writer's thread or at once. */
#include "log.h"
#include "core/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    /* Bytes at a time to what may block although poll says that there is room. */
    CAREFUL_PIECE = 512,
    /* In one system call, of those to a file: whole lines, so that other writers' do not mix. */
    LINES_AT_ONCE = 64,
    /* Seconds until the same failure is told again. */
    TELL_AGAIN = 60,
};

typedef struct log_sink {
    sl_sink base;
    /** The place by its name; NULL: a descriptor of the host's. */
    char *path;
    int fd;
    dev_t device;
    ino_t inode;
    /** The descriptor is ours to close. */
    bool is_own;
    bool is_regular, is_socket;
    /** Whether a reader that has gone would end the process: the program ignores SIGPIPE, others
     * may not. */
    bool may_raise;
    /** It cannot be kept from blocking but by asking before. */
    bool may_block;
    bool is_plain;
    /** The last line was cut short: the next one begins with a newline. */
    bool is_torn;
    /** The first part of a line was written at once, the rest is the next record. */
    bool is_begun;
    /** Lines lost that were not told of in the log. */
    uint64_t lost;
    /** Why nothing can be written; 0: it can. */
    _Atomic int failure;
    int told_failure;
    time_t told_at;
} log_sink;

/* ---- opening ---- */

static int log_describe(log_sink *sink)
{
    struct stat info;
    if (fstat(sink->fd, &info) != 0)
        return errno;
    sink->is_regular = S_ISREG(info.st_mode);
    sink->is_socket = S_ISSOCK(info.st_mode);
    struct sigaction action;
    sink->may_raise =
        !sink->is_regular && sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL;
    sink->device = info.st_dev;
    sink->inode = info.st_ino;
    return S_ISDIR(info.st_mode) ? EISDIR : 0;
}

/** Without O_NONBLOCK the open would wait for a reader of a named pipe. */
static int log_open_path(log_sink *sink)
{
    int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    sink->fd = open(sink->path, flags, 0666);
    return sink->fd < 0 ? errno : log_describe(sink);
}

/** Opens a pipe or a terminal anew, so that it does not block us and still blocks the others who
 * have it. */
static void log_open_again(log_sink *sink)
{
    char name[sizeof "/proc/self/fd/" + 12];
    snprintf(name, sizeof name, "/proc/self/fd/%d", sink->fd);
    int fd = open(name, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    sink->may_block = fd < 0;
    if (fd < 0)
        return;
    sink->fd = fd;
    sink->is_own = true;
}

static const sl_sink_type log_sink_type;

static log_sink *log_new(int *failure)
{
    log_sink *sink = calloc(1, sizeof *sink);
    if (!sink) {
        *failure = ENOMEM;
        return NULL;
    }
    sink->base.type = &log_sink_type;
    sink->fd = -1;
    return sink;
}

static void log_close(sl_sink *base)
{
    log_sink *sink = (log_sink *)base;
    if (sink->is_own && sink->fd >= 0)
        close(sink->fd);
    free(sink->path);
    free(sink);
}

void sl_log_discard(sl_sink *sink)
{
    log_close(sink);
}

sl_sink *sl_log_open_file(const char *path, int *failure)
{
    log_sink *sink = log_new(failure);
    if (!sink)
        return NULL;
    sink->path = strdup(path);
    sink->is_own = true;
    *failure = sink->path ? log_open_path(sink) : ENOMEM;
    if (*failure == 0)
        return &sink->base;
    log_close(&sink->base);
    return NULL;
}

sl_sink *sl_log_open_descriptor(int fd, int *failure)
{
    log_sink *sink = log_new(failure);
    if (!sink)
        return NULL;
    sink->fd = fd;
    *failure = log_describe(sink);
    if (*failure) {
        log_close(&sink->base);
        return NULL;
    }
    if (!sink->is_regular && !sink->is_socket)
        log_open_again(sink);
    return &sink->base;
}

bool sl_log_is_terminal(sl_sink *sink)
{
    return isatty(((log_sink *)sink)->fd);
}

void sl_log_set_plain(sl_sink *sink, bool is_plain)
{
    ((log_sink *)sink)->is_plain = is_plain;
}

/* ---- writing ---- */

/** Waits for room. False: there is none, and no more time to wait for it. */
static bool log_wait(log_sink *sink)
{
    int stop_fd = sl_sink_stop_fd(&sink->base);
    struct pollfd watched[] = {
        {.fd = sink->fd, .events = POLLOUT},
        {.fd = stop_fd, .events = POLLIN},
    };
    while (poll(watched, 2, stop_fd >= 0 ? -1 : 0) < 0)
        if (errno != EINTR)
            return false;
    return watched[0].revents != 0;
}

static ssize_t log_write_some(const log_sink *sink, const char *bytes, size_t length)
{
    if (sink->is_socket)
        return send(sink->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (!sink->may_raise)
        return write(sink->fd, bytes, length);
    sigset_t before;
    sl_signal_hold(SIGPIPE, &before);
    ssize_t count = write(sink->fd, bytes, length);
    sl_signal_release(SIGPIPE, &before, count < 0 && errno == EPIPE);
    return count;
}

/** 0, or errno. */
static int log_put(log_sink *sink, const char *bytes, size_t length)
{
    size_t done = 0;
    while (done < length) {
        size_t piece = length - done;
        if (sink->may_block && !log_wait(sink))
            return EAGAIN;
        if (sink->may_block && piece > CAREFUL_PIECE)
            piece = CAREFUL_PIECE;
        ssize_t count = log_write_some(sink, bytes + done, piece);
        if (count > 0) {
            done += (size_t)count;
            sink->is_torn = done < length;
        } else if (count == 0) {
            return EIO;
        } else if (errno == EAGAIN && !log_wait(sink)) {
            return EAGAIN;
        } else if (errno != EAGAIN && errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

static size_t log_write_now(sl_sink *base, const sl_record *record)
{
    log_sink *sink = (log_sink *)base;
    if (sink->is_regular || sink->may_block || record->tag != SL_LOG_LINE ||
        record->length > PIPE_BUF || sink->lost || sink->is_torn || atomic_load(&sink->failure))
        return 0;
    ssize_t count = log_write_some(sink, record->bytes, record->length);
    sink->is_begun = count > 0 && (size_t)count < record->length;
    return count > 0 ? (size_t)count : 0;
}

/** What a failure changes. It is told once, and again when it is still so after a while. */
static void log_note(log_sink *sink, int failure)
{
    if (atomic_exchange(&sink->failure, failure) == failure || failure == 0 || failure == EAGAIN)
        return;
    time_t now = time(NULL);
    if (failure == sink->told_failure && now - sink->told_at < TELL_AGAIN)
        return;
    sink->told_failure = failure;
    sink->told_at = now;
    sl_sink_notify(&sink->base);
}

/** A line that says how many were lost. */
static int log_tell_lost(log_sink *sink)
{
    char line[160], date[32];
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(date, sizeof date, sink->is_plain ? "%H:%M:%S" : "%Y-%m-%dT%H:%M:%S", &tm);
    int milliseconds = (int)(now.tv_nsec / 1000000), length;
    unsigned long long count = sink->lost;
    if (sink->is_plain)
        length = snprintf(line, sizeof line, "%s.%03d WARN  log lines were lost  count=%llu\n",
                          date, milliseconds, count);
    else
        length = snprintf(line, sizeof line,
                          "{\"time\":\"%s.%03dZ\",\"level\":\"warn\","
                          "\"event\":\"log lines were lost\",\"count\":%llu}\n",
                          date, milliseconds, count);
    int failure = log_put(sink, line, (size_t)length);
    if (failure == 0)
        sink->lost = 0;
    return failure;
}

static void log_lose(log_sink *sink, int failure)
{
    sink->lost++;
    sl_sink_failed(&sink->base, 1);
    log_note(sink, failure);
}

static void log_write_line(log_sink *sink, const sl_record *record)
{
    int failure = sink->is_torn ? log_put(sink, "\n", 1) : 0;
    if (failure == 0 && sink->lost && !sink->is_begun)
        failure = log_tell_lost(sink);
    if (failure == 0)
        failure = log_put(sink, record->bytes, record->length);
    sink->is_begun = false;
    if (failure)
        log_lose(sink, failure);
    else
        log_note(sink, 0);
}

/** Writes lines to a file, all of them at once; returns how many were taken care of. */
static size_t log_write_lines(log_sink *sink, const sl_record *records, size_t count)
{
    struct iovec pieces[LINES_AT_ONCE];
    size_t lines = 0;
    for (; lines < count && lines < LINES_AT_ONCE && records[lines].tag == SL_LOG_LINE; lines++)
        pieces[lines] = (struct iovec){(char *)records[lines].bytes, records[lines].length};
    ssize_t written = writev(sink->fd, pieces, (int)lines);
    if (written < 0)
        return 0;
    size_t left = (size_t)written, done = 0;
    while (done < lines && left >= pieces[done].iov_len)
        left -= pieces[done++].iov_len;
    log_note(sink, 0);
    if (done == lines || left == 0)
        return done;
    sink->is_torn = true;
    int failure = log_put(sink, records[done].bytes + left, records[done].length - left);
    if (failure)
        log_lose(sink, failure);
    return done + 1;
}

/* ---- files that are moved away ---- */

/** The old file stays where the new one cannot be opened. */
static int log_reopen(log_sink *sink)
{
    int before = sink->fd;
    int failure = log_open_path(sink);
    if (failure) {
        if (sink->fd >= 0)
            close(sink->fd);
        sink->fd = before;
        return failure;
    }
    close(before);
    sink->is_torn = false;
    return 0;
}

/** 0: what is written goes where the name says. */
static int log_look(log_sink *sink)
{
    struct stat info;
    if (!sink->path)
        return 0;
    if (stat(sink->path, &info) == 0 && info.st_dev == sink->device && info.st_ino == sink->inode)
        return 0;
    return log_reopen(sink);
}

static void log_write(sl_sink *base, const sl_record *records, size_t count)
{
    log_sink *sink = (log_sink *)base;
    int failure = log_look(sink);
    size_t i = 0;
    if (failure == 0 && sink->is_regular && !sink->lost && !sink->is_torn)
        i = log_write_lines(sink, records, count);
    for (; i < count; i++) {
        if (records[i].tag == SL_LOG_REOPEN)
            failure = log_reopen(sink);
        else if (failure)
            log_lose(sink, failure);
        else
            log_write_line(sink, &records[i]);
    }
}

static bool log_ask_reopen(sl_sink *base)
{
    if (!((log_sink *)base)->path)
        return false;
    sl_sink_push(base, &(sl_record){"", 0, SL_LOG_REOPEN});
    return true;
}

/* ---- telling ---- */

static void log_tell_dropped(sl_sink *base, uint64_t count)
{
    log_sink *sink = (log_sink *)base;
    sink->lost += count;
    sink->is_torn |= sink->is_begun;
    sink->is_begun = false;
}

static void log_complain(sl_sink *base, sl_core *core)
{
    const log_sink *sink = (log_sink *)base;
    int failure = atomic_load(&sink->failure);
    char text[512];
    if (failure == 0)
        return;
    snprintf(text, sizeof text, "the log%s%.300s cannot be written: %s", sink->path ? " " : "",
             sink->path ? sink->path : "", strerror(failure));
    sl_complain(core, text);
}

static const sl_sink_type log_sink_type = {
    .write = log_write,
    .close = log_close,
    .tell_dropped = log_tell_dropped,
    .write_now = log_write_now,
    .on_notice = log_complain,
    .reopen = log_ask_reopen,
};
