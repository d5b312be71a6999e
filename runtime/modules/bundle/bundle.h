/* SPDX-License-Identifier: MIT */
/*
 * Bundles: a program, and behind it a script, its modules and its data; no Lua.
 *
 * What stands behind the program are entries, one after another: a letter for the kind, the length
 * of the name in 4 bytes, the name, the length of the content in 8, the content; little endian.
 * Where they begin, how long they are and their checksum is written into the program.
 */
#ifndef SL_BUNDLE_H
#define SL_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    /* Kinds of entries: bytecode of the script, named by its path, and of modules; data. */
    SL_BUNDLE_SCRIPT = 'S',
    SL_BUNDLE_MODULE = 'M',
    SL_BUNDLE_DATA = 'D',
    /* What texts of failures need. */
    SL_BUNDLE_REASON = 160,
};

/** Where the entries are in the file of the program, in bytes, and their XXH64. */
typedef struct sl_bundle_place {
    uint64_t offset, size, checksum;
} sl_bundle_place;

/** The entries, mapped while it is open. Zeroed: closed. */
typedef struct sl_bundle {
    const unsigned char *bytes;
    size_t size;
    /** What is to be unmapped; pages begin before the entries do. */
    void *mapping;
    size_t mapped;
} sl_bundle;

/** An entry; both texts are inside the bundle, without a NUL behind them. */
typedef struct sl_bundle_entry {
    char kind;
    const char *name, *content;
    size_t name_length, content_length;
} sl_bundle_entry;

/**
 * Maps the entries of the program at `path` and checks them: length, checksum, form. False with the
 * reason, for people, in `reason` (SL_BUNDLE_REASON bytes).
 */
bool sl_bundle_open(sl_bundle *bundle, const char *path, const sl_bundle_place *place,
                    char *reason);
/** Idempotent. */
void sl_bundle_close(sl_bundle *bundle);

/** Reads the entry at `*at`, 0 for the first, and moves on. 1; 0 at the end; -1: no entry there. */
int sl_bundle_next(const sl_bundle *bundle, size_t *at, sl_bundle_entry *entry);
/** Whether entries, and nothing else, fill it. */
bool sl_bundle_is_sound(const sl_bundle *bundle);

/** The file that this process runs, also where /proc is not mounted. */
const char *sl_bundle_program(void);

/**
 * Writes a program: to `beside`, a file that may be run by those whom the umask allows, which takes
 * the place of `path` in one step. A descriptor, or an errno value below 0.
 */
int sl_bundle_create(const char *beside);
/** 0, or an errno value. */
int sl_bundle_append(int fd, const void *bytes, size_t length);
/** Closes it, on the disk and in the place of `path`; without a path, or on failure, removed. 0, or
 * an errno value. */
int sl_bundle_finish(int fd, const char *beside, const char *path);

#endif
