/* SPDX-License-Identifier: MIT */
/*
 * TLS under the connections of a server, by OpenSSL. Its memory is OpenSSL's own, not the core's:
 * allocators of OpenSSL belong to the process, and so does openssl.cnf, which it reads by itself.
 */
#ifndef SL_SERVER_TLS_H
#define SL_SERVER_TLS_H

#include "server.h"

typedef struct sl_tls sl_tls;

/**
 * TLS 1.2 and 1.3 with this certificate (PEM, leaf first) and its key (PEM, not encrypted), both
 * files. Returns NULL where that cannot be, and says why in `error`.
 */
sl_tls *sl_tls_new(sl_core *core, const char *certificate, const char *key, char *error,
                   size_t size);
/** Once no connection uses it. NULL is fine. */
void sl_tls_delete(sl_tls *tls);
/** Before the first connection. The server does not own it. */
void sl_tls_use(sl_server *server, sl_tls *tls);

#endif
