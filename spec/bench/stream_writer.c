/* SPDX-License-Identifier: MIT */
/*
 * server_streams.lua in C on libev, with nothing in it that a server needs beside sending: what a
 * server of event streams could reach at the most. stream_writer PORT MILLISECONDS
 */
#include <arpa/inet.h>
#include <ev.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct stream {
    ev_io io;
    ev_timer timer;
} stream;

static double interval;

static void close_stream(struct ev_loop *loop, stream *s)
{
    ev_io_stop(loop, &s->io);
    ev_timer_stop(loop, &s->timer);
    close(s->io.fd);
    free(s);
}

static void on_due(struct ev_loop *loop, ev_timer *timer, int events)
{
    stream *s = timer->data;
    char data[64], chunk[96];
    struct timespec now;
    (void)events;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(data, sizeof data, "data: %lld\n\n",
                          (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    length = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", (unsigned)length, data);
    if (send(s->io.fd, chunk, (size_t)length, MSG_NOSIGNAL) < 0)
        close_stream(loop, s);
}

static void on_request(struct ev_loop *loop, ev_io *io, int events)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    stream *s = io->data;
    char bytes[4096];
    (void)events;
    if (read(io->fd, bytes, sizeof bytes) <= 0) {
        close_stream(loop, s);
        return;
    }
    send(io->fd, head, sizeof head - 1, MSG_NOSIGNAL);
    ev_timer_init(&s->timer, on_due, interval, interval);
    s->timer.data = s;
    ev_timer_start(loop, &s->timer);
}

static void on_connection(struct ev_loop *loop, ev_io *io, int events)
{
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK);
    stream *s = fd < 0 ? NULL : calloc(1, sizeof *s);
    (void)events;
    if (!s)
        return;
    ev_io_init(&s->io, on_request, fd, EV_READ);
    s->io.data = s;
    ev_io_start(loop, &s->io);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    interval = atof(argv[2]) / 1000;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0)
        return 1;
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    ev_io io;
    ev_io_init(&io, on_connection, fd, EV_READ);
    ev_io_start(loop, &io);
    ev_run(loop, 0);
    return 0;
}
