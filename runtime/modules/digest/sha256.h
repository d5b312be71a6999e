/* SPDX-License-Identifier: MIT */
/* SHA-256 by OpenSSL, one digest at a time. No Lua. */
#ifndef SL_SHA256_H
#define SL_SHA256_H

#include <stdbool.h>
#include <stddef.h>

enum { SL_SHA256_SIZE = 32 };

/** What is looked up and made once: it costs more than a digest. Zeroed is closed. */
typedef struct sl_sha256 {
    /** OpenSSL's EVP_MD and EVP_MD_CTX. */
    void *algorithm, *context;
    /** How many digests were begun: another count than before means that another one was. */
    size_t started;
} sl_sha256;

/** False where OpenSSL has no SHA-256 for us, or no memory. */
bool sl_sha256_open(sl_sha256 *sha);
/** Idempotent. */
void sl_sha256_close(sl_sha256 *sha);

/** Begins a digest; what was begun before is forgotten. These three fail only without memory. */
bool sl_sha256_start(sl_sha256 *sha);
bool sl_sha256_add(sl_sha256 *sha, const void *bytes, size_t size);
bool sl_sha256_finish(sl_sha256 *sha, unsigned char out[SL_SHA256_SIZE]);

#endif
