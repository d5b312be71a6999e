/* SPDX-License-Identifier: MIT */
/*
 * Where log lines go: a file, which may be rotated, or a descriptor of the host's.
 *
 * Lines are the records of a sink of the writer. Where writing cannot wait (pipes, terminals,
 * sockets) a line is written at once while there is room, else the thread writes it. What was lost,
 * for want of room or because it could not be written, is said in a line of its own as soon as one
 * comes through; that nothing can be written is told to the host, once. A file that was moved away
 * or removed is opened anew, at the next lines.
 *
 * An engine without lua.h.
 */
#ifndef SL_LOG_H
#define SL_LOG_H

#include "modules/writer/writer.h"

enum {
    /** The tags of records: a line with its newline; or the file is opened anew. */
    SL_LOG_LINE,
    SL_LOG_REOPEN,
};

/** Opens, or makes, a file to append to. NULL with *failure as errno. */
sl_sink *sl_log_open_file(const char *path, int *failure);
/** For a descriptor that stays the caller's. NULL with *failure as errno. */
sl_sink *sl_log_open_descriptor(int fd, int *failure);
/** Frees a sink that was not given to a writer. */
void sl_log_discard(sl_sink *sink);
bool sl_log_is_terminal(sl_sink *sink);
/** Whether what the sink itself says is for people, not JSON. Before the first record. */
void sl_log_set_plain(sl_sink *sink, bool is_plain);

#endif
