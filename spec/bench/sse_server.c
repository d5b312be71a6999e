/* SPDX-License-Identifier: MIT */
/*
 * A server of chat streams for the bench: each request is answered by a stream without end, one
 * chunk at each INTERVAL with the time it was sent at. sse_server INTERVAL_MS; prints its port.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 100000, EVENTS = 256 };

/* By descriptor: when the next chunk is due, 0: nobody streams. */
static int64_t due_of[MOST];
/* Those who stream, in the order of their dues: each goes to the end after its chunk. */
static int ring[MOST];
static size_t ring_first, ring_count;

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void stop(int fd)
{
    due_of[fd] = 0;
    close(fd);
}

static bool send_all(int fd, const char *bytes, size_t size)
{
    return send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

static bool send_chunk(int fd)
{
    static const char format[] =
        "data: {\"id\":\"chatcmpl-9f3a1c2b7d8e4f5a\",\"object\":\"chat.completion.chunk\","
        "\"created\":1764000000,\"model\":\"my-served-model-2\",\"choices\":[{\"index\":0,"
        "\"delta\":{\"content\":\" gate\"},\"finish_reason\":null}],\"t\":%lld}\n\n";
    char event[512], chunk[560];
    int size = snprintf(event, sizeof event, format, (long long)now_us());
    int all = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", (unsigned)size, event);
    return send_all(fd, chunk, (size_t)all);
}

static void push(int fd, int64_t due)
{
    due_of[fd] = due;
    ring[(ring_first + ring_count++) % MOST] = fd;
}

static void begin(int fd)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    if (!send_all(fd, head, sizeof head - 1) || !send_chunk(fd))
        stop(fd);
    else
        push(fd, now_us());
}

static void on_readable(int fd)
{
    char bytes[4096];
    ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got > 0 && due_of[fd] == 0)
        begin(fd); /* a request is one packet here */
    else if (got == 0 || (got < 0 && errno != EAGAIN))
        stop(fd);
}

static void send_due(int64_t interval)
{
    int64_t now = now_us();
    while (ring_count > 0) {
        int fd = ring[ring_first];
        if (due_of[fd] != 0 && due_of[fd] + interval > now)
            break;
        ring_first = (ring_first + 1) % MOST;
        ring_count--;
        if (due_of[fd] == 0)
            continue;
        int64_t due = due_of[fd] + interval;
        if (send_chunk(fd))
            push(fd, due);
        else
            stop(fd);
    }
}

static int listen_anywhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&address, &size))
        exit(1);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void watch(int loop, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

static void accept_all(int loop, int listener)
{
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MOST)
            exit(1);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(loop, fd);
    }
}

int main(int argc, char **argv)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int64_t interval = argc == 2 ? strtol(argv[1], NULL, 10) * 1000 : 500000;
    int listener = listen_anywhere(), loop = epoll_create1(0);
    watch(loop, listener);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(loop, events, EVENTS, 1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_all(loop, listener);
            else
                on_readable(events[i].data.fd);
        }
        send_due(interval);
    }
}
