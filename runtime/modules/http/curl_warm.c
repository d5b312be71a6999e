/* SPDX-License-Identifier: MIT */
/*
 * What the first TLS connection of a client costs, done before it is needed: libcurl reads the file
 * of authorities, about 20 ms, when it begins a handshake, and keeps it with the multi handle. So a
 * handshake is begun, with a socket pair whose other end never answers.
 */
#include "curl_wire.h"

#include <sys/socket.h>
#include <unistd.h>

static curl_socket_t warm_on_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    int *fd = user;
    int taken = *fd;
    (void)purpose;
    (void)address;
    *fd = -1;
    return taken < 0 ? CURL_SOCKET_BAD : taken;
}

static int warm_on_socket(void *user, curl_socket_t fd, curlsocktype purpose)
{
    (void)user;
    (void)fd;
    (void)purpose;
    return CURL_SOCKOPT_ALREADY_CONNECTED;
}

/** Turns the multi until the handshake has begun: the first flight has come out at the other end.
 */
static void warm_begin_handshake(sl_curl_wire *wire, int other_end)
{
    enum { MOST_TURNS = 10 };
    char byte;
    int running;
    for (int i = 0; i < MOST_TURNS; i++) {
        curl_multi_socket_action(wire->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        if (running == 0 || recv(other_end, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
            return;
    }
}

void sl_curl_warm_up(sl_curl_wire *wire)
{
    int ends[2];
    sl_curl_handle *handle = sl_curl_handle_take(wire, false);
    if (!handle)
        return;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0) {
        CURL *easy = handle->easy;
        curl_easy_setopt(easy, CURLOPT_URL, "https://127.0.0.1/");
        curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, warm_on_open);
        curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, &ends[0]);
        curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, warm_on_socket);
        curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L); /* nothing of it is kept for others */
        if (curl_multi_add_handle(wire->multi, easy) == CURLM_OK) {
            warm_begin_handshake(wire, ends[1]);
            curl_multi_remove_handle(wire->multi, easy);
        }
        if (ends[0] >= 0)
            close(ends[0]);
        close(ends[1]);
    }
    sl_curl_handle_free(handle);
}
