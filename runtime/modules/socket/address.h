/* SPDX-License-Identifier: MIT */
/* Where a socket binds or connects: read from text and written as text. Never resolves a name. */
#ifndef SL_ADDRESS_H
#define SL_ADDRESS_H

#include <stddef.h>
#include <sys/socket.h>

typedef struct sl_address {
    struct sockaddr_storage storage;
    socklen_t length;
} sl_address;

enum {
    /** Holds every text that sl_address_format makes. */
    SL_ADDRESS_TEXT = 128,
};

/** From a host and a port: an IP literal or "localhost". Returns NULL, or what is wrong (static).
 */
const char *sl_address_set(sl_address *address, const char *host, long port);

/** From "127.0.0.1:80", "[::1]:80", "localhost:80", "unix:/path". As sl_address_set. */
const char *sl_address_parse(sl_address *address, const char *text);

/** As sl_address_parse reads it; a peer without a name is "unix:". */
void sl_address_format(const sl_address *address, char text[SL_ADDRESS_TEXT]);

/** The port, or 0. */
int sl_address_port(const sl_address *address);

/**
 * A non-blocking listening socket, or -1 with errno. A path that nobody listens on any more is
 * taken over; what is no socket is left alone (EADDRINUSE).
 */
int sl_address_listen(const sl_address *address, int backlog);

#endif
