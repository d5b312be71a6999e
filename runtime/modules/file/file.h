/* SPDX-License-Identifier: MIT */
/* Files that are read, appended to, cut and synced; no Lua. */
#ifndef SL_FILE_H
#define SL_FILE_H

#include "hash.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/** One open file; closed is fd -1. Its owner calls from one thread. */
typedef struct sl_file {
    int fd;
    bool is_regular, is_foreign /* a descriptor that stays open */;
    bool is_limited; /* RLIMIT_FSIZE is set: a write may raise SIGXFSZ */
    /** A sync under way: a thread that calls fdatasync and writes to `event`; never Lua's business.
     */
    bool is_syncing;
    pthread_t thread;
    int event, sync_result;
} sl_file;

/** Opens for reading. Returns 0, or an errno value. */
int sl_file_open_read(sl_file *file, const char *path);
/**
 * Opens for reading and appending, made where it is missing. Nobody else may hold it by this call:
 * EWOULDBLOCK. Returns 0, or an errno value.
 */
int sl_file_open_append(sl_file *file, const char *path);
/** Takes a descriptor that stays open when the file is closed. */
void sl_file_borrow(sl_file *file, int fd);
/** Idempotent. Waits for a sync under way. */
void sl_file_close(sl_file *file);

/** Reads at an offset, or at the place it is at where `offset` is negative; -1 with errno set. */
ssize_t sl_file_read(sl_file *file, void *target, size_t length, off_t offset);
/** Appends all, or says how much of it was written. Returns 0, or an errno value. */
int sl_file_write(sl_file *file, const char *bytes, size_t length, size_t *written);

/**
 * Starts to bring what was written to the disk, on a thread of its own: `file->event` can be read
 * once it is done. Then sl_file_sync_end() gives 0 or an errno value. Returns 0, or an errno value.
 */
int sl_file_sync_start(sl_file *file);
int sl_file_sync_end(sl_file *file);

#endif
