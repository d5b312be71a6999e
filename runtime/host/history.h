/* SPDX-License-Identifier: MIT */
/*
 * The file of entries that were typed in earlier sessions: an entry a line, with "\n" and "\\" for
 * line ends and backslashes in it. For its owner alone. Several sessions may append at once.
 */
#ifndef SL_HOST_HISTORY_H
#define SL_HOST_HISTORY_H

/**
 * Opens the file, making it and its folders where they are missing, and gives each entry, oldest
 * first, to `take`.
 *
 * @return a descriptor for history_append(), the caller's to close; -1 with errno set.
 */
int history_open(const char *path, void (*take)(void *user, const char *entry), void *user);

/** Adds an entry. Returns 0, or -1 with errno set. */
int history_append(int fd, const char *entry);

#endif
