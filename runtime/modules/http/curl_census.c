/* SPDX-License-Identifier: MIT */
/* How many connections libcurl has: it tells of every socket it opens, but not of every close. */
#include "curl_wire.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t census_inode(int fd)
{
    struct stat facts;
    return fstat(fd, &facts) == 0 ? (uint64_t)facts.st_ino : 0;
}

static bool census_grow(sl_curl_census *census, size_t size)
{
    uint64_t *inodes = sl_realloc(census->core, census->inodes, size * sizeof *inodes);
    if (!inodes)
        return false;
    census->inodes = inodes;
    uint16_t *ports = sl_realloc(census->core, census->ports, size * sizeof *ports);
    if (!ports)
        return false;
    census->ports = ports;
    memset(inodes + census->size, 0, (size - census->size) * sizeof *inodes);
    memset(ports + census->size, 0, (size - census->size) * sizeof *ports);
    census->size = size;
    return true;
}

/** Without memory a socket is not counted, which is all the harm. */
static void census_note(sl_curl_census *census, int fd)
{
    if ((size_t)fd >= census->size) {
        size_t size = census->size ? census->size : 64;
        while (size <= (size_t)fd)
            size *= 2;
        if (!census_grow(census, size))
            return;
    }
    census->inodes[fd] = census_inode(fd);
    census->ports[fd] = 0;
}

static curl_socket_t census_on_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)purpose;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    sl_curl_wire *wire = user;
    sl_curl_socket_forget(wire, fd);
    census_note(&wire->census, fd);
    return fd;
}

static int census_on_close(void *user, curl_socket_t fd)
{
    sl_curl_wire *wire = user;
    sl_curl_census *census = &wire->census;
    sl_curl_socket_forget(wire, fd);
    if ((size_t)fd < census->size)
        census->inodes[fd] = census->ports[fd] = 0;
    return close(fd);
}

void sl_curl_census_name(sl_curl_census *census, curl_socket_t fd, long port)
{
    if (fd >= 0 && (size_t)fd < census->size && port > 0 && port <= UINT16_MAX)
        census->ports[fd] = (uint16_t)port;
}

int sl_curl_census_find(sl_curl_census *census, int port)
{
    if (port <= 0)
        return -1;
    int *hint = &census->hints[port / 2 % CURL_HINTS];
    if ((size_t)*hint < census->size && census->ports[*hint] == port)
        return *hint;
    for (size_t fd = 0; fd < census->size; fd++) {
        if (census->ports[fd] == port)
            return *hint = (int)fd;
    }
    return -1;
}

void sl_curl_census_watch(sl_curl_wire *wire, CURL *easy)
{
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, census_on_open);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, wire);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, census_on_close);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, wire);
}

size_t sl_curl_census_count(sl_curl_census *census)
{
    size_t count = 0;
    for (size_t fd = 0; fd < census->size; fd++) {
        if (census->inodes[fd] == 0)
            continue;
        if (census_inode((int)fd) == census->inodes[fd])
            count++;
        else
            census->inodes[fd] = 0;
    }
    return count;
}

void sl_curl_census_fini(sl_curl_census *census)
{
    sl_free(census->core, census->inodes);
    sl_free(census->core, census->ports);
}
