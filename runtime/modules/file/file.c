/* SPDX-License-Identifier: MIT */
/* The file engine: plain system calls, and a thread for the one that takes long. */
#include "file.h"
#include "core/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static int file_describe(sl_file *file)
{
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        return errno;
    if (S_ISDIR(info.st_mode))
        return EISDIR;
    struct rlimit limit;
    file->is_regular = S_ISREG(info.st_mode);
    file->is_limited = getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY;
    return 0;
}

static int file_open(sl_file *file, const char *path, int flags)
{
    *file = (sl_file){.fd = open(path, flags | O_CLOEXEC | O_NOCTTY, 0666), .event = -1};
    if (file->fd < 0)
        return errno;
    return file_describe(file);
}

int sl_file_open_read(sl_file *file, const char *path)
{
    return file_open(file, path, O_RDONLY);
}

int sl_file_open_append(sl_file *file, const char *path)
{
    int failure = file_open(file, path, O_RDWR | O_CREAT | O_APPEND);
    if (failure || !file->is_regular)
        return failure;
    /* a file system without locks is no reason to refuse */
    if (flock(file->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return EWOULDBLOCK;
    return 0;
}

void sl_file_borrow(sl_file *file, int fd)
{
    *file = (sl_file){.fd = fd, .event = -1, .is_foreign = true};
    file_describe(file);
}

void sl_file_close(sl_file *file)
{
    if (file->is_syncing)
        sl_file_sync_end(file); /* the thread uses the descriptor */
    int fd = file->fd;
    file->fd = -1;
    if (fd >= 0 && !file->is_foreign)
        close(fd);
}

ssize_t sl_file_read(sl_file *file, void *target, size_t length, off_t offset)
{
    ssize_t got;
    do {
        got = offset < 0 ? read(file->fd, target, length) : pread(file->fd, target, length, offset);
    } while (got < 0 && errno == EINTR);
    return got;
}

static int file_write_all(sl_file *file, const char *bytes, size_t length, size_t *written)
{
    while (*written < length) {
        ssize_t count = write(file->fd, bytes + *written, length - *written);
        if (count > 0)
            *written += (size_t)count;
        else if (count == 0)
            return EIO;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

int sl_file_write(sl_file *file, const char *bytes, size_t length, size_t *written)
{
    *written = 0;
    if (!file->is_limited)
        return file_write_all(file, bytes, length, written);
    sigset_t before; /* the process's own setting is the host's */
    sl_signal_hold(SIGXFSZ, &before);
    int failure = file_write_all(file, bytes, length, written);
    sl_signal_release(SIGXFSZ, &before, failure == EFBIG);
    return failure;
}

/* ---- syncing ---- */

/* The owner reads sync_result after it has joined the thread. */
static void *file_sync_run(void *user)
{
    sl_file *file = user;
    file->sync_result = fdatasync(file->fd) == 0 ? 0 : errno;
    uint64_t one = 1;
    while (write(file->event, &one, sizeof one) < 0 && errno == EINTR)
        continue;
    return NULL;
}

int sl_file_sync_start(sl_file *file)
{
    file->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (file->event < 0)
        return errno;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN > 65536 ? PTHREAD_STACK_MIN : 65536);
    sigset_t all, before;
    sigfillset(&all); /* signals are the host's, and its thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&file->thread, &attributes, file_sync_run, file);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failure) {
        close(file->event);
        file->event = -1;
    }
    file->is_syncing = failure == 0;
    return failure;
}

int sl_file_sync_end(sl_file *file)
{
    pthread_join(file->thread, NULL);
    file->is_syncing = false;
    close(file->event);
    file->event = -1;
    return file->sync_result;
}
