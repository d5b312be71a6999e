/* SPDX-License-Identifier: MIT */
/*
 * sluice.core.socket: plain stream sockets for raw bytes. Internal: the specs talk to servers and
 * play misbehaving ones with it; the HTTP client and server have engines of their own.
 */
#include "address.h"
#include "core/core.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

LUAMOD_API int luaopen_sluice_core_socket(lua_State *L);

static const char socket_type[] = "sluice.socket";
static const char listener_type[] = "sluice.socket.listener";

enum {
    SOCKET_READ_SIZE = 65536,
    BACKLOG = 128,
};

/** A connection, or a listener: then `readers` are those that accept. */
typedef struct raw_socket {
    sl_io io; /* fd is -1 when closed */
    sl_core *core;
    sl_waitlist readers, writers;
    sl_close_hook hook;
} raw_socket;

#define OWNER_OF(pointer, member)                                                                  \
    ((raw_socket *)(void *)((char *)(pointer)-offsetof(raw_socket, member)))

static void watch_what_is_waited_for(raw_socket *s)
{
    unsigned events = (s->readers.first ? SL_READ : 0u) | (s->writers.first ? SL_WRITE : 0u);
    /* Without memory it stays watched, which only costs turns of the loop. */
    (void)sl_io_watch(s->core, &s->io, events);
}

static void on_socket_ready(sl_io *io, unsigned events)
{
    raw_socket *s = OWNER_OF(io, io);
    if (events & SL_READ)
        sl_waitlist_wake(&s->readers, SIZE_MAX);
    if (events & SL_WRITE)
        sl_waitlist_wake(&s->writers, SIZE_MAX);
    watch_what_is_waited_for(s);
}

/** The one way out: close, __close, __gc and the end of the core. Those who wait see it closed. */
static void raw_socket_close(raw_socket *s)
{
    if (s->io.fd < 0)
        return;
    int fd = s->io.fd;
    (void)sl_io_watch(s->core, &s->io, 0);
    s->io.fd = -1;
    sl_close_hook_remove(&s->hook);
    close(fd);
    sl_waitlist_wake(&s->readers, SIZE_MAX);
    sl_waitlist_wake(&s->writers, SIZE_MAX);
}

static void on_core_close(sl_close_hook *hook)
{
    raw_socket *s = OWNER_OF(hook, hook);
    s->readers = s->writers = (sl_waitlist){0};
    raw_socket_close(s);
}

/** Pushes a closed one; raw_socket_adopt opens it. */
static raw_socket *raw_socket_new(lua_State *L, const char *type)
{
    raw_socket *s = lua_newuserdatauv(L, sizeof *s, 0);
    memset(s, 0, sizeof *s);
    s->io.fd = -1;
    s->io.on_ready = on_socket_ready;
    s->hook.on_close = on_core_close;
    s->core = sl_core_of(L);
    luaL_setmetatable(L, type);
    return s;
}

static void raw_socket_adopt(raw_socket *s, int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    s->io.fd = fd;
    sl_close_hook_add(s->core, &s->hook);
}

static int push_failure(lua_State *L, const char *what, int error)
{
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", what, strerror(error));
    return 2;
}

static int push_closed(lua_State *L)
{
    lua_pushnil(L);
    lua_pushliteral(L, "the socket is closed");
    return 2;
}

static int push_limit_used_up(lua_State *L)
{
    lua_pushnil(L);
    lua_pushliteral(L, SL_LIMIT_TEXT);
    return 2;
}

static int wait_readable(lua_State *L, raw_socket *s, const char *what, lua_KFunction k)
{
    sl_wait_check(L);
    if (sl_io_watch(s->core, &s->io, s->io.events | SL_READ) < 0)
        return luaL_error(L, "not enough memory");
    return sl_waitlist_wait(L, &s->readers, what, 0, k);
}

static int wait_writable(lua_State *L, raw_socket *s, const char *what, lua_KContext ctx,
                         lua_KFunction k)
{
    sl_wait_check(L);
    if (sl_io_watch(s->core, &s->io, s->io.events | SL_WRITE) < 0)
        return luaL_error(L, "not enough memory");
    return sl_waitlist_wait(L, &s->writers, what, ctx, k);
}

static raw_socket *check_socket(lua_State *L)
{
    return luaL_checkudata(L, 1, socket_type);
}

/** From (host, port) or ("unix:/path") at the first arguments. */
static void check_address(lua_State *L, sl_address *address)
{
    const char *host = luaL_checkstring(L, 1);
    const char *wrong = lua_isnoneornil(L, 2)
                            ? sl_address_parse(address, host)
                            : sl_address_set(address, host, (long)luaL_checkinteger(L, 2));
    luaL_argcheck(L, !wrong, 1, wrong);
}

/* ---- a connection ---- */

static int k_socket_connect(lua_State *L, int status, lua_KContext ctx)
{
    (void)status, (void)ctx;
    raw_socket *s = lua_touserdata(L, -1);
    int error = 0;
    socklen_t size = sizeof error;
    if (s->io.fd < 0)
        return push_closed(L);
    getsockopt(s->io.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0)
        return 1;
    raw_socket_close(s);
    return push_failure(L, "connect", error);
}

/* connect(host, port) or connect("unix:/path") -> socket | nil, message; waits */
static int l_socket_connect(lua_State *L)
{
    sl_address address;
    check_address(L, &address);
    sl_require_capability(L, SL_CAN_CONNECT, "socket.connect");
    const char *refusal =
        sl_refuse_connection(sl_core_of(L), lua_tostring(L, 1), (unsigned)lua_tointeger(L, 2));
    if (refusal)
        return luaL_error(L, "socket.connect: %s", refusal);
    sl_require_real_time(L, "socket.connect");
    sl_wait_check(L);
    raw_socket *s = raw_socket_new(L, socket_type);
    int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return push_failure(L, "socket", errno);
    raw_socket_adopt(s, fd);
    if (connect(fd, (struct sockaddr *)&address.storage, address.length) == 0)
        return 1;
    if (errno == EINPROGRESS)
        return wait_writable(L, s, "socket.connect", 0, k_socket_connect);
    int error = errno;
    raw_socket_close(s);
    return push_failure(L, "connect", error);
}

static int k_socket_read(lua_State *L, int status, lua_KContext ctx)
{
    (void)status, (void)ctx;
    raw_socket *s = lua_touserdata(L, 1);
    luaL_Buffer buffer;
    if (s->io.fd < 0)
        return push_closed(L);
    char *into = luaL_buffinitsize(L, &buffer, SOCKET_READ_SIZE);
    ssize_t got = recv(s->io.fd, into, SOCKET_READ_SIZE, 0);
    int error = errno;
    luaL_pushresultsize(&buffer, got > 0 ? (size_t)got : 0);
    if (got > 0 && !sl_count_bytes(s->core, (size_t)got))
        return push_limit_used_up(L);
    if (got > 0)
        return 1;
    lua_pop(L, 1);
    if (got == 0) {
        lua_pushnil(L);
        return 1;
    }
    if (error == EAGAIN || error == EINTR)
        return wait_readable(L, s, "socket:read", k_socket_read);
    return push_failure(L, "read", error);
}

/* socket:read() -> bytes | nil at the end | nil, message; waits */
static int l_socket_read(lua_State *L)
{
    check_socket(L);
    return k_socket_read(L, LUA_OK, 0);
}

static int k_socket_write(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    raw_socket *s = lua_touserdata(L, 1);
    size_t length, done = (size_t)ctx;
    const char *bytes = lua_tolstring(L, 2, &length);
    while (s->io.fd >= 0 && done < length) {
        ssize_t sent = send(s->io.fd, bytes + done, length - done, MSG_NOSIGNAL);
        if (sent > 0 && !sl_count_bytes(s->core, (size_t)sent))
            return push_limit_used_up(L);
        if (sent > 0)
            done += (size_t)sent;
        else if (errno == EAGAIN)
            return wait_writable(L, s, "socket:write", (lua_KContext)done, k_socket_write);
        else if (errno != EINTR)
            return push_failure(L, "write", errno);
    }
    if (s->io.fd < 0)
        return push_closed(L);
    lua_pushboolean(L, true);
    return 1;
}

/* socket:write(bytes) -> true | nil, message; waits until the kernel has them all */
static int l_socket_write(lua_State *L)
{
    check_socket(L);
    luaL_checkstring(L, 2);
    lua_settop(L, 2);
    return k_socket_write(L, LUA_OK, 0);
}

/* socket:shutdown(): no more is sent, the peer reads an end */
static int l_socket_shutdown(lua_State *L)
{
    raw_socket *s = check_socket(L);
    if (s->io.fd >= 0)
        shutdown(s->io.fd, SHUT_WR);
    return 0;
}

/* socket:reset(): closes so that the peer sees a reset (TCP) */
static int l_socket_reset(lua_State *L)
{
    raw_socket *s = check_socket(L);
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    if (s->io.fd >= 0)
        setsockopt(s->io.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    raw_socket_close(s);
    return 0;
}

/* socket:close(); also of a listener; idempotent */
static int l_socket_close(lua_State *L)
{
    raw_socket_close(lua_touserdata(L, 1));
    return 0;
}

static int l_socket_close_checked(lua_State *L)
{
    raw_socket_close(check_socket(L));
    return 0;
}

static int l_socket_tostring(lua_State *L)
{
    raw_socket *s = lua_touserdata(L, 1);
    lua_getfield(L, lua_upvalueindex(1), "__name");
    lua_pushfstring(L, "%s: %s", lua_tostring(L, -1), s->io.fd < 0 ? "closed" : "open");
    return 1;
}

/* ---- a listener ---- */

/* listen(host, port) or listen("unix:/path") -> listener | nil, message; port 0 takes a free one */
static int l_socket_listen(lua_State *L)
{
    sl_address address;
    check_address(L, &address);
    sl_require_capability(L, SL_CAN_LISTEN, "socket.listen");
    sl_require_real_time(L, "socket.listen");
    raw_socket *s = raw_socket_new(L, listener_type);
    int fd = sl_address_listen(&address, BACKLOG);
    if (fd < 0)
        return push_failure(L, "listen", errno);
    raw_socket_adopt(s, fd);
    return 1;
}

static int k_listener_accept(lua_State *L, int status, lua_KContext ctx)
{
    (void)status, (void)ctx;
    raw_socket *listener = lua_touserdata(L, 1);
    if (listener->io.fd < 0)
        return push_closed(L);
    lua_settop(L, 1);
    raw_socket *s = raw_socket_new(L, socket_type);
    int fd = accept4(listener->io.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        raw_socket_adopt(s, fd);
        return 1;
    }
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
        return wait_readable(L, listener, "listener:accept", k_listener_accept);
    return push_failure(L, "accept", errno);
}

/* listener:accept() -> socket | nil, message; waits */
static int l_listener_accept(lua_State *L)
{
    luaL_checkudata(L, 1, listener_type);
    return k_listener_accept(L, LUA_OK, 0);
}

static int l_listener_close(lua_State *L)
{
    raw_socket_close(luaL_checkudata(L, 1, listener_type));
    return 0;
}

/* listener.port, listener.address, or a method */
static int l_listener_index(lua_State *L)
{
    raw_socket *s = luaL_checkudata(L, 1, listener_type);
    const char *key = luaL_checkstring(L, 2);
    sl_address address = {.length = sizeof address.storage};
    char text[SL_ADDRESS_TEXT];
    bool is_port = strcmp(key, "port") == 0;
    if (!is_port && strcmp(key, "address") != 0) {
        lua_getfield(L, lua_upvalueindex(1), key);
        return 1;
    }
    if (s->io.fd < 0)
        return 0;
    getsockname(s->io.fd, (struct sockaddr *)&address.storage, &address.length);
    sl_address_format(&address, text);
    if (is_port)
        lua_pushinteger(L, sl_address_port(&address));
    else
        lua_pushstring(L, text);
    return 1;
}

static const luaL_Reg socket_methods[] = {
    {"read", l_socket_read},   {"write", l_socket_write},         {"shutdown", l_socket_shutdown},
    {"reset", l_socket_reset}, {"close", l_socket_close_checked}, {NULL, NULL},
};

static const luaL_Reg listener_methods[] = {
    {"accept", l_listener_accept},
    {"close", l_listener_close},
    {NULL, NULL},
};

static const luaL_Reg socket_functions[] = {
    {"connect", l_socket_connect},
    {"listen", l_socket_listen},
    {NULL, NULL},
};

/** Makes the metatable of a type; leaves it and its methods on the stack. */
static void push_type(lua_State *L, const char *type, const luaL_Reg *methods)
{
    luaL_newmetatable(L, type);
    lua_pushcfunction(L, l_socket_close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, l_socket_close);
    lua_setfield(L, -2, "__close");
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, l_socket_tostring, 1);
    lua_setfield(L, -2, "__tostring");
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
}

int luaopen_sluice_core_socket(lua_State *L)
{
    push_type(L, socket_type, socket_methods);
    lua_setfield(L, -2, "__index");
    push_type(L, listener_type, listener_methods);
    lua_pushcclosure(L, l_listener_index, 1);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, socket_functions);
    return 1;
}
