/* SPDX-License-Identifier: MIT */
/* The file of entries that were typed in earlier sessions. */
#include "history.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    /* A file that has grown larger is cut to its end when a session starts. */
    HISTORY_MOST = 512 * 1024,
    HISTORY_KEPT = 128 * 1024,
};

static int make_folders(const char *path)
{
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s", path) >= (int)sizeof folder) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, 0700) != 0 && errno != EEXIST)
            return -1;
        *slash = '/';
    }
    return 0;
}

/** The end of the file from the first whole line on, NUL-terminated and to be freed; NULL: none. */
static char *read_end(int fd, off_t size, size_t *length)
{
    size_t wanted = size > HISTORY_MOST ? HISTORY_KEPT : (size_t)size;
    char *text = malloc(wanted + 1);
    ssize_t got = text ? pread(fd, text, wanted, size - (off_t)wanted) : -1;
    if (got < 0) {
        free(text);
        return NULL;
    }
    text[got] = '\0';
    char *first = (off_t)wanted < size ? strchr(text, '\n') : NULL;
    *length = (size_t)got;
    if (first) {
        *length -= (size_t)(first + 1 - text);
        memmove(text, first + 1, *length + 1);
    }
    return text;
}

/** In place: it only shrinks. */
static void decode_entry(char *entry)
{
    char *to = entry;
    for (const char *at = entry; *at; at++) {
        if (*at != '\\' || !at[1]) {
            *to++ = *at;
            continue;
        }
        at++;
        *to++ = (char)(*at == 'n' ? '\n' : *at);
    }
    *to = '\0';
}

static void give_entries(char *text, void (*take)(void *user, const char *entry), void *user)
{
    char *rest = NULL;
    for (char *entry = strtok_r(text, "\n", &rest); entry; entry = strtok_r(NULL, "\n", &rest)) {
        decode_entry(entry);
        take(user, entry);
    }
}

/** Another session may hold the old file open: its last entries are lost, which is no harm. */
static void shorten(const char *path, const char *text, size_t length, int *fd)
{
    char beside[PATH_MAX];
    if (snprintf(beside, sizeof beside, "%s.new", path) >= (int)sizeof beside)
        return;
    int made = open(beside, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (made < 0)
        return;
    if (write(made, text, length) == (ssize_t)length && rename(beside, path) == 0) {
        close(*fd);
        *fd = made;
        return;
    }
    close(made);
    unlink(beside);
}

int history_open(const char *path, void (*take)(void *user, const char *entry), void *user)
{
    if (make_folders(path) != 0)
        return -1;
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    struct stat info;
    bool is_file = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    if (is_file && (info.st_mode & 077) != 0)
        fchmod(fd, 0600);
    size_t length = 0;
    char *text = is_file ? read_end(fd, info.st_size, &length) : NULL;
    if (text) {
        if (info.st_size > HISTORY_MOST)
            shorten(path, text, length, &fd);
        give_entries(text, take, user);
        free(text);
    }
    return fd;
}

int history_append(int fd, const char *entry)
{
    char *line = malloc(2 * strlen(entry) + 2);
    if (!line)
        return -1;
    char *to = line;
    for (const char *at = entry; *at; at++) {
        if (*at == '\n' || *at == '\\')
            *to++ = '\\';
        *to++ = (char)(*at == '\n' ? 'n' : *at);
    }
    *to++ = '\n';
    /* in one write, so that those of two sessions do not mix */
    ssize_t written = write(fd, line, (size_t)(to - line));
    bool is_whole = written == to - line;
    free(line);
    if (written >= 0 && !is_whole)
        errno = ENOSPC;
    return is_whole ? 0 : -1;
}
