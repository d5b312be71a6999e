/* SPDX-License-Identifier: MIT */
/* SHA-256 by OpenSSL's EVP. */
#include "sha256.h"

#include <openssl/evp.h>

bool sl_sha256_open(sl_sha256 *sha)
{
    sha->algorithm = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    sha->context = EVP_MD_CTX_new();
    if (sha->algorithm != NULL && sha->context != NULL)
        return true;
    sl_sha256_close(sha);
    return false;
}

void sl_sha256_close(sl_sha256 *sha)
{
    EVP_MD *algorithm = sha->algorithm;
    EVP_MD_CTX *context = sha->context;
    sha->algorithm = sha->context = NULL;
    if (context != NULL)
        EVP_MD_CTX_free(context);
    if (algorithm != NULL)
        EVP_MD_free(algorithm);
}

bool sl_sha256_start(sl_sha256 *sha)
{
    sha->started++;
    return EVP_DigestInit_ex2(sha->context, sha->algorithm, NULL) == 1;
}

bool sl_sha256_add(sl_sha256 *sha, const void *bytes, size_t size)
{
    return EVP_DigestUpdate(sha->context, bytes, size) == 1;
}

bool sl_sha256_finish(sl_sha256 *sha, unsigned char out[SL_SHA256_SIZE])
{
    unsigned size = 0;
    return EVP_DigestFinal_ex(sha->context, out, &size) == 1 && size == SL_SHA256_SIZE;
}
