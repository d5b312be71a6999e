/* SPDX-License-Identifier: MIT */
/* Writing a program: beside the one that it replaces, then in its place in one step. */
#include "bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int sl_bundle_create(const char *beside)
{
    unlink(beside); /* of a process with our number that was killed */
    int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0777);
    return fd < 0 ? -errno : fd;
}

int sl_bundle_append(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t count = write(fd, at, length);
        if (count > 0) {
            at += count;
            length -= (size_t)count;
        } else if (count == 0 || errno != EINTR) {
            return count == 0 ? EIO : errno;
        }
    }
    return 0;
}

int sl_bundle_finish(int fd, const char *beside, const char *path)
{
    int failure = path && fsync(fd) != 0 ? errno : 0;
    if (close(fd) != 0 && !failure)
        failure = errno;
    if (path && !failure && rename(beside, path) != 0)
        failure = errno;
    if (!path || failure)
        unlink(beside);
    return failure;
}
