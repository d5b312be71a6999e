/* SPDX-License-Identifier: MIT */
/* The terminal engine, on termios and write(2). */
#include "terminal.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* How long a full terminal may hold its writer; a healthy one drains in microseconds. */
#define TERMINAL_PATIENCE_MS 1000

bool sl_terminal_is_one(int fd)
{
    return isatty(fd) == 1;
}

bool sl_terminal_size(int fd, int *columns, int *rows)
{
    struct winsize size = {0};
    /* a serial line or a detached pseudo-terminal reports 0 x 0 */
    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
        return false;
    }
    *columns = size.ws_col;
    *rows = size.ws_row;
    return true;
}

static int terminal_wait_writable(int fd)
{
    struct pollfd watched = {.fd = fd, .events = POLLOUT};
    int ready = poll(&watched, 1, TERMINAL_PATIENCE_MS);
    if (ready < 0 && errno != EINTR) {
        return errno;
    }
    return ready == 0 ? EAGAIN : 0;
}

int sl_terminal_write(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written >= 0) {
            bytes += written;
            length -= (size_t)written;
            continue;
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            return errno;
        }
        int failure = terminal_wait_writable(fd);
        if (failure != 0) {
            return failure;
        }
    }
    return 0;
}
