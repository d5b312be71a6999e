/* SPDX-License-Identifier: MIT */
/* Where a socket binds or connects: read from text and written as text. Never resolves a name. */
#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char *set_path(sl_address *address, const char *path)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&address->storage;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof un->sun_path)
        return "the path of a unix socket has 1 to 107 bytes";
    memset(&address->storage, 0, sizeof address->storage);
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, length + 1);
    address->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    return NULL;
}

const char *sl_address_set(sl_address *address, const char *host, long port)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&address->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address->storage;
    if (port < 0 || port > 65535)
        return "a port is from 0 to 65535";
    memset(&address->storage, 0, sizeof address->storage);
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        address->length = sizeof *in;
        return NULL;
    }
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        address->length = sizeof *in6;
        return NULL;
    }
    return "the host must be an IP address or localhost";
}

/** Digits only, at most five; -1 otherwise. */
static long parse_port(const char *text)
{
    size_t length = strlen(text);
    if (length == 0 || length > 5 || strspn(text, "0123456789") != length)
        return -1;
    return strtol(text, NULL, 10);
}

const char *sl_address_parse(sl_address *address, const char *text)
{
    if (strncmp(text, "unix:", 5) == 0)
        return set_path(address, text + 5);
    char host[INET6_ADDRSTRLEN + 2];
    const char *colon = strrchr(text, ':');
    if (!colon)
        return "an address is HOST:PORT or unix:PATH";
    size_t length = (size_t)(colon - text);
    const char *from = text;
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
        from++;
        length -= 2;
    } else if (memchr(text, ':', length)) {
        return "an IPv6 address stands in brackets: [::1]:8080";
    }
    if (length >= sizeof host)
        return "the host must be an IP address or localhost";
    memcpy(host, from, length);
    host[length] = '\0';
    return sl_address_set(address, host, parse_port(colon + 1));
}

int sl_address_port(const sl_address *address)
{
    if (address->storage.ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)&address->storage)->sin_port);
    if (address->storage.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&address->storage)->sin6_port);
    return 0;
}

void sl_address_format(const sl_address *address, char text[SL_ADDRESS_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "";
    const struct sockaddr_storage *storage = &address->storage;
    if (storage->ss_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)storage)->sin_addr, host, sizeof host);
        snprintf(text, SL_ADDRESS_TEXT, "%s:%d", host, sl_address_port(address));
    } else if (storage->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)storage)->sin6_addr, host, sizeof host);
        snprintf(text, SL_ADDRESS_TEXT, "[%s]:%d", host, sl_address_port(address));
    } else {
        const struct sockaddr_un *un = (const struct sockaddr_un *)storage;
        bool named = address->length > offsetof(struct sockaddr_un, sun_path);
        snprintf(text, SL_ADDRESS_TEXT, "unix:%s", named ? un->sun_path : "");
    }
}

/** Removes a socket file that refuses connections, so that its path can be bound again. */
static void remove_stale(const sl_address *address)
{
    const char *path = ((const struct sockaddr_un *)&address->storage)->sun_path;
    struct stat info;
    if (lstat(path, &info) != 0 || !S_ISSOCK(info.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    int failed = connect(fd, (const struct sockaddr *)&address->storage, address->length);
    if (failed && errno == ECONNREFUSED)
        unlink(path);
    close(fd);
}

int sl_address_listen(const sl_address *address, int backlog)
{
    int family = address->storage.ss_family, on = 1;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (family == AF_UNIX)
        remove_stale(address);
    else
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&address->storage, address->length) != 0 ||
        listen(fd, backlog) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}
