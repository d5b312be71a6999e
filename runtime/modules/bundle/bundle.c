/* SPDX-License-Identifier: MIT */
/* Reading bundles: whatever the bytes are, nothing outside them is read. */
#include "bundle.h"

#include "../file/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BUNDLE_NAME_LENGTH = 4,
    BUNDLE_CONTENT_LENGTH = 8,
};

/* ---- entries ---- */

static uint64_t bundle_number(const unsigned char *at, int bytes)
{
    uint64_t number = 0;
    for (int i = bytes; i-- > 0;)
        number = number << 8 | at[i];
    return number;
}

/** A length and as many bytes: where they begin, with `*left` bytes behind `*at` on both sides. */
static const char *bundle_text(const unsigned char **at, size_t *left, int digits, size_t *length)
{
    if (*left < (size_t)digits)
        return NULL;
    uint64_t wanted = bundle_number(*at, digits);
    *at += digits;
    *left -= (size_t)digits;
    if (wanted > *left)
        return NULL;
    const char *text = (const char *)*at;
    *length = (size_t)wanted;
    *at += wanted;
    *left -= (size_t)wanted;
    return text;
}

int sl_bundle_next(const sl_bundle *bundle, size_t *at, sl_bundle_entry *entry)
{
    if (*at >= bundle->size)
        return 0;
    const unsigned char *bytes = bundle->bytes + *at;
    size_t left = bundle->size - *at - 1;
    *entry = (sl_bundle_entry){.kind = (char)*bytes++};
    if (!memchr("SMD", entry->kind, 3))
        return -1;
    entry->name = bundle_text(&bytes, &left, BUNDLE_NAME_LENGTH, &entry->name_length);
    if (!entry->name)
        return -1;
    entry->content = bundle_text(&bytes, &left, BUNDLE_CONTENT_LENGTH, &entry->content_length);
    if (!entry->content)
        return -1;
    *at = bundle->size - left;
    return 1;
}

bool sl_bundle_is_sound(const sl_bundle *bundle)
{
    sl_bundle_entry entry;
    size_t at = 0;
    int found;
    do {
        found = sl_bundle_next(bundle, &at, &entry);
    } while (found > 0);
    return found == 0;
}

/* ---- the file ---- */

static bool bundle_map(sl_bundle *bundle, int fd, const sl_bundle_place *place, char *reason)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), before = (size_t)(place->offset % page);
    struct stat info;
    if (fstat(fd, &info) != 0) {
        snprintf(reason, SL_BUNDLE_REASON, "%s", strerror(errno));
        return false;
    }
    uint64_t size = (uint64_t)info.st_size;
    if (size < place->offset || size - place->offset != place->size) {
        snprintf(reason, SL_BUNDLE_REASON,
                 "it is %s: %" PRIu64 " bytes instead of %" PRIu64 ". Copy it again",
                 size < place->offset + place->size ? "truncated" : "longer than it was made", size,
                 place->offset + place->size);
        return false;
    }
    bundle->mapped = (size_t)place->size + before;
    void *mapping = mmap(NULL, bundle->mapped, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd,
                         (off_t)(place->offset - before));
    if (mapping == MAP_FAILED) {
        snprintf(reason, SL_BUNDLE_REASON, "%s", strerror(errno));
        return false;
    }
    bundle->mapping = mapping;
    bundle->bytes = (const unsigned char *)mapping + before;
    bundle->size = (size_t)place->size;
    return true;
}

static bool bundle_check(const sl_bundle *bundle, uint64_t checksum, char *reason)
{
    sl_hash hash;
    sl_hash_init(&hash);
    sl_hash_add(&hash, bundle->bytes, bundle->size);
    if (sl_hash_value(&hash) == checksum && sl_bundle_is_sound(bundle))
        return true;
    snprintf(reason, SL_BUNDLE_REASON,
             "it is corrupted: its checksum is not the one that it was made with. Copy it again");
    return false;
}

bool sl_bundle_open(sl_bundle *bundle, const char *path, const sl_bundle_place *place, char *reason)
{
    *bundle = (sl_bundle){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(reason, SL_BUNDLE_REASON, "it cannot read itself: %s", strerror(errno));
        return false;
    }
    bool is_open = bundle_map(bundle, fd, place, reason);
    close(fd);
    if (is_open && bundle_check(bundle, place->checksum, reason))
        return true;
    sl_bundle_close(bundle);
    return false;
}

void sl_bundle_close(sl_bundle *bundle)
{
    void *mapping = bundle->mapping;
    size_t mapped = bundle->mapped;
    *bundle = (sl_bundle){0};
    if (mapping)
        munmap(mapping, mapped);
}

const char *sl_bundle_program(void)
{
    static const char link[] = "/proc/self/exe";
    const char *path = (const char *)getauxval(AT_EXECFN);
    return access(link, R_OK) == 0 || !path ? link : path;
}
