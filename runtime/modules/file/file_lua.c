/* SPDX-License-Identifier: MIT */
/* Lua's view of files: sluice.core.file. Internal: for what is appended to and must not be torn. */
#include "file.h"

#include "../../core/core.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

LUAMOD_API int luaopen_sluice_core_file(lua_State *L);

static const char file_type[] = "sluice.file", scan_type[] = "sluice.file.scan";

enum {
    FILE_CHUNK = 65536, /* the most that one read gives */
    PIPE_CHUNK = 4096,  /* what a pipe that can be written to takes without blocking */
};

/** A file of Lua's; closed in the beginning. */
typedef struct file_box {
    sl_core *core;
    sl_file file;
    sl_io io;
    sl_task *waiter;
    char *chunk; /* FILE_CHUNK bytes, made at the first read */
    sl_close_hook hook;
} file_box;

/** What is known of bytes that went by: their hash, and how many lines are not blank. */
typedef struct file_scan {
    sl_hash hash;
    lua_Integer rows;
    bool has_content; /* of the line under way */
} file_scan;

/* ---- opening and closing ---- */

static void file_box_close(file_box *box)
{
    if (box->file.fd < 0)
        return;
    sl_io_watch(box->core, &box->io, 0);
    sl_close_hook_remove(&box->hook);
    sl_file_close(&box->file);
    sl_free(box->core, box->chunk);
    box->chunk = NULL;
    sl_task *waiter = box->waiter;
    box->waiter = NULL;
    if (waiter)
        sl_wake(waiter);
}

static void on_file_core_close(sl_close_hook *hook)
{
    file_box_close((file_box *)(void *)((char *)hook - offsetof(file_box, hook)));
}

static int l_handle_close(lua_State *L)
{
    file_box_close(luaL_checkudata(L, 1, file_type));
    return 0;
}

static int push_handle_failure(lua_State *L, int error)
{
    lua_pushnil(L);
    lua_pushstring(L, error == EWOULDBLOCK ? "another program writes to it" : strerror(error));
    lua_pushinteger(L, error);
    return 3;
}

static file_box *push_handle_box(lua_State *L)
{
    sl_core *core = sl_core_of(L);
    file_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    memset(box, 0, sizeof *box);
    box->core = core;
    box->file.fd = box->file.event = -1;
    box->hook.on_close = on_file_core_close;
    luaL_setmetatable(L, file_type);
    return box;
}

/* open(path, "read"|"append") -> file | nil, text, errno */
static int l_handle_open(lua_State *L)
{
    static const char *const modes[] = {"read", "append", NULL};
    const char *path = luaL_checkstring(L, 1);
    bool append = luaL_checkoption(L, 2, NULL, modes) == 1;
    sl_require_capability(L, append ? SL_CAN_READ_FILES | SL_CAN_WRITE_FILES : SL_CAN_READ_FILES,
                          append ? "writing a file" : "reading a file");
    file_box *box = push_handle_box(L);
    int failure =
        append ? sl_file_open_append(&box->file, path) : sl_file_open_read(&box->file, path);
    if (failure) {
        sl_file_close(&box->file);
        return push_handle_failure(L, failure);
    }
    sl_close_hook_add(box->core, &box->hook);
    return 1;
}

/* standard(0|1) -> file: a descriptor of the process, which stays open */
static int l_handle_standard(lua_State *L)
{
    lua_Integer fd = luaL_checkinteger(L, 1);
    luaL_argcheck(L, fd == 0 || fd == 1, 1, "0 or 1 expected");
    sl_require_capability(L, fd == 0 ? SL_CAN_READ_FILES : SL_CAN_WRITE_FILES,
                          "using standard input and output");
    file_box *box = push_handle_box(L);
    sl_file_borrow(&box->file, (int)fd);
    sl_close_hook_add(box->core, &box->hook);
    return 1;
}

static file_box *check_handle(lua_State *L)
{
    file_box *box = luaL_checkudata(L, 1, file_type);
    luaL_argcheck(L, box->file.fd >= 0, 1, "the file is closed");
    return box;
}

/* ---- waiting ---- */

static void on_file_ready(sl_io *io, unsigned events)
{
    (void)events;
    file_box *box = (file_box *)(void *)((char *)io - offsetof(file_box, io));
    sl_task *waiter = box->waiter;
    sl_io_watch(box->core, io, 0);
    box->waiter = NULL;
    if (waiter)
        sl_wake(waiter);
}

static void cancel_handle_wait(sl_task *task, void *object)
{
    (void)task;
    file_box *box = object;
    sl_io_watch(box->core, &box->io, 0);
    box->waiter = NULL;
}

static int file_wait(lua_State *L, file_box *box, int fd, unsigned events, const char *what,
                     lua_KContext ctx, lua_KFunction k)
{
    luaL_argcheck(L, !box->waiter, 1, "another task waits for the file");
    sl_require_real_time(L, what);
    sl_wait_check(L);
    box->io = (sl_io){.fd = fd, .on_ready = on_file_ready};
    if (sl_io_watch(box->core, &box->io, events) != 0)
        return push_handle_failure(L, ENOMEM);
    box->waiter = sl_task_current(box->core);
    return sl_wait(L, what, cancel_handle_wait, box, ctx, k);
}

static bool is_file_ready(const sl_file *file, short events)
{
    struct pollfd watched = {.fd = file->fd, .events = events};
    return file->is_regular || poll(&watched, 1, 0) != 0;
}

/* ---- reading ---- */

static int file_read_now(lua_State *L, file_box *box, lua_Integer length, lua_Integer offset)
{
    if (!box->chunk)
        box->chunk = sl_alloc(box->core, FILE_CHUNK);
    if (!box->chunk)
        return push_handle_failure(L, ENOMEM);
    ssize_t got = sl_file_read(&box->file, box->chunk, (size_t)length, (off_t)offset);
    if (got < 0)
        return push_handle_failure(L, errno);
    if (got == 0)
        lua_pushnil(L);
    else
        lua_pushlstring(L, box->chunk, (size_t)got);
    return 1;
}

static int k_handle_read(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    file_box *box = check_handle(L);
    if (!is_file_ready(&box->file, POLLIN))
        return file_wait(L, box, box->file.fd, SL_READ, "file:read", ctx, k_handle_read);
    return file_read_now(L, box, (lua_Integer)ctx, -1);
}

/*
 * file:read(n, offset?) -> 1 to n bytes | nil at the end | nil, text, errno
 * Without an offset from where it stands, and waits where a pipe has nothing yet.
 */
static int l_handle_read(lua_State *L)
{
    file_box *box = check_handle(L);
    lua_Integer length = luaL_checkinteger(L, 2), offset = luaL_optinteger(L, 3, -1);
    luaL_argcheck(L, length >= 1 && length <= FILE_CHUNK, 2, "1 to 65536 bytes");
    if (offset >= 0)
        return file_read_now(L, box, length, offset);
    return k_handle_read(L, LUA_OK, (lua_KContext)length);
}

/* file:stat() -> size, is_regular, identity | nil, text, errno */
static int l_handle_stat(lua_State *L)
{
    file_box *box = check_handle(L);
    struct stat info;
    if (fstat(box->file.fd, &info) != 0)
        return push_handle_failure(L, errno);
    char text[64];
    snprintf(text, sizeof text, "%llx:%llx", (unsigned long long)info.st_dev,
             (unsigned long long)info.st_ino);
    lua_pushinteger(L, (lua_Integer)info.st_size);
    lua_pushboolean(L, box->file.is_regular);
    lua_pushstring(L, text);
    return 3;
}

/* ---- writing ---- */

static int push_written(lua_State *L, int failure, size_t written)
{
    if (failure) {
        push_handle_failure(L, failure);
        lua_pushinteger(L, (lua_Integer)written);
        return 4;
    }
    lua_pushboolean(L, true);
    return 1;
}

/* `ctx` is how much was written before. */
static int k_handle_write(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    file_box *box = check_handle(L);
    size_t length, done = (size_t)ctx, written;
    const char *bytes = luaL_checklstring(L, 2, &length);
    while (done < length) {
        if (!is_file_ready(&box->file, POLLOUT))
            return file_wait(L, box, box->file.fd, SL_WRITE, "file:write", (lua_KContext)done,
                             k_handle_write);
        size_t piece = length - done < PIPE_CHUNK ? length - done : PIPE_CHUNK;
        int failure = sl_file_write(&box->file, bytes + done, piece, &written);
        done += written;
        if (failure)
            return push_written(L, failure, done);
    }
    return push_written(L, 0, done);
}

/* The strings from index 2 on, one after another, in the chunk; NULL where it cannot hold them. */
static const char *gather(lua_State *L, file_box *box, size_t *total)
{
    *total = 0;
    if (!box->chunk)
        box->chunk = sl_alloc(box->core, FILE_CHUNK);
    for (int i = 2, top = lua_gettop(L); i <= top && box->chunk; i++) {
        size_t length;
        const char *bytes = luaL_checklstring(L, i, &length);
        if (length > FILE_CHUNK - *total)
            return NULL;
        memcpy(box->chunk + *total, bytes, length);
        *total += length;
    }
    return box->chunk;
}

/* file:write(bytes...) -> true | nil, text, errno, written; waits where a pipe is full */
static int l_handle_write(lua_State *L)
{
    file_box *box = check_handle(L);
    size_t length, written;
    const char *bytes = luaL_checklstring(L, 2, &length);
    if (lua_gettop(L) > 2) {
        bytes = gather(L, box, &length);
        if (!bytes || !box->file.is_regular) {
            lua_concat(L, lua_gettop(L) - 1);
            bytes = lua_tolstring(L, 2, &length);
        }
    }
    if (!box->file.is_regular)
        return k_handle_write(L, LUA_OK, 0);
    int failure = sl_file_write(&box->file, bytes, length, &written);
    return push_written(L, failure, written);
}

/* file:truncate(size) -> true | nil, text, errno */
static int l_handle_truncate(lua_State *L)
{
    file_box *box = check_handle(L);
    lua_Integer size = luaL_checkinteger(L, 2);
    luaL_argcheck(L, size >= 0, 2, "a size of at least 0");
    return push_written(L, ftruncate(box->file.fd, (off_t)size) == 0 ? 0 : errno, 0);
}

static int k_handle_sync(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    (void)ctx;
    file_box *box = check_handle(L);
    return push_written(L, box->file.is_syncing ? sl_file_sync_end(&box->file) : 0, 0);
}

/*
 * file:sync() -> true | nil, text, errno
 * Waits until what was written is on the disk; the loop runs on, and more may be written meanwhile.
 * A pipe has nothing to sync.
 */
static int l_handle_sync(lua_State *L)
{
    file_box *box = check_handle(L);
    if (!box->file.is_regular)
        return push_written(L, 0, 0);
    luaL_argcheck(L, !box->waiter, 1, "another task waits for the file");
    sl_require_real_time(L, "file:sync");
    sl_wait_check(L);
    if (box->file.is_syncing)
        sl_file_sync_end(&box->file); /* one that nobody waited for */
    int failure = sl_file_sync_start(&box->file);
    if (failure)
        return push_written(L, failure, 0);
    return file_wait(L, box, box->file.event, SL_READ, "file:sync", 0, k_handle_sync);
}

/* ---- scans ---- */

/* scan() -> what adds up the hash and the rows of the bytes it is given */
static int l_scan_new(lua_State *L)
{
    file_scan *scan = lua_newuserdatauv(L, sizeof *scan, 0);
    *scan = (file_scan){.rows = 0};
    sl_hash_init(&scan->hash);
    luaL_setmetatable(L, scan_type);
    return 1;
}

static bool has_content(const char *at, const char *end)
{
    while (at < end && (unsigned char)*at <= ' ')
        at++;
    return at < end;
}

static void scan_add(file_scan *scan, const char *bytes, size_t length)
{
    const char *at = bytes, *end = bytes + length;
    sl_hash_add(&scan->hash, bytes, length);
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        scan->has_content = scan->has_content || has_content(at, stop);
        if (newline) {
            scan->rows += scan->has_content;
            scan->has_content = false;
        }
        at = stop + 1;
    }
}

/* scan:add(bytes) */
static int l_scan_add(lua_State *L)
{
    file_scan *scan = luaL_checkudata(L, 1, scan_type);
    size_t length;
    const char *bytes = luaL_checklstring(L, 2, &length);
    scan_add(scan, bytes, length);
    return 0;
}

static int push_hash(lua_State *L, uint64_t value)
{
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    lua_pushstring(L, text);
    return 1;
}

/* scan:result() -> hash in 16 hexadecimal digits, lines that are not blank */
static int l_scan_result(lua_State *L)
{
    const file_scan *scan = luaL_checkudata(L, 1, scan_type);
    push_hash(L, sl_hash_value(&scan->hash));
    lua_pushinteger(L, scan->rows + scan->has_content);
    return 2;
}

/* file:scan(scan, offset, n) -> bytes added, fewer than n at the end | nil, text, errno */
static int l_handle_scan(lua_State *L)
{
    file_box *box = check_handle(L);
    file_scan *scan = luaL_checkudata(L, 2, scan_type);
    lua_Integer offset = luaL_checkinteger(L, 3), wanted = luaL_checkinteger(L, 4), done = 0;
    luaL_argcheck(L, offset >= 0, 3, "an offset of at least 0");
    if (!box->chunk)
        box->chunk = sl_alloc(box->core, FILE_CHUNK);
    if (!box->chunk)
        return push_handle_failure(L, ENOMEM);
    while (done < wanted) {
        size_t piece = wanted - done < FILE_CHUNK ? (size_t)(wanted - done) : FILE_CHUNK;
        ssize_t got = sl_file_read(&box->file, box->chunk, piece, (off_t)(offset + done));
        if (got < 0)
            return push_handle_failure(L, errno);
        if (got == 0)
            break;
        scan_add(scan, box->chunk, (size_t)got);
        done += got;
    }
    lua_pushinteger(L, done);
    return 1;
}

static uint64_t hash_arguments(lua_State *L)
{
    sl_hash hash;
    sl_hash_init(&hash);
    for (int i = 1, top = lua_gettop(L); i <= top; i++) {
        size_t length;
        const char *bytes = luaL_checklstring(L, i, &length);
        sl_hash_add(&hash, bytes, length);
    }
    return sl_hash_value(&hash);
}

/* checksum(bytes...) -> 16 hexadecimal digits */
static int l_hash_checksum(lua_State *L)
{
    return push_hash(L, hash_arguments(L));
}

/* hash(bytes...) -> the same as an integer */
static int l_hash_number(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)hash_arguments(L));
    return 1;
}

/** What a prefix draws for a key: a number in (0, 1). */
static double hash_draw(lua_State *L, const char *key, size_t length)
{
    size_t size;
    const char *prefix = luaL_checklstring(L, -1, &size);
    sl_hash hash;
    sl_hash_init(&hash);
    sl_hash_add(&hash, prefix, size);
    sl_hash_add(&hash, key, length);
    return ((double)(sl_hash_value(&hash) >> 11) + 0.5) * 0x1p-53;
}

/*
 * rendezvous(key, prefixes, shares) -> index | nil
 * Whose draw u of prefix and key has the largest ln(u) / share; one without a share is left out.
 */
static int l_hash_rendezvous(lua_State *L)
{
    size_t length;
    const char *key = luaL_checklstring(L, 1, &length);
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_Integer count = (lua_Integer)lua_rawlen(L, 2), chosen = 0;
    double best = 0;
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 3, i);
        double share = lua_tonumber(L, -1);
        if (share > 0) {
            lua_rawgeti(L, 2, i);
            double score = log(hash_draw(L, key, length)) / share;
            if (!chosen || score > best) {
                best = score;
                chosen = i;
            }
        }
        lua_settop(L, 3);
    }
    if (chosen)
        lua_pushinteger(L, chosen);
    else
        lua_pushnil(L);
    return 1;
}

static const luaL_Reg file_functions[] = {
    {"open", l_handle_open},
    {"standard", l_handle_standard},
    {"checksum", l_hash_checksum},
    {"hash", l_hash_number},
    {"scan", l_scan_new},
    {"rendezvous", l_hash_rendezvous},
    {NULL, NULL},
};

static const luaL_Reg file_methods[] = {
    {"read", l_handle_read},   {"stat", l_handle_stat},
    {"write", l_handle_write}, {"truncate", l_handle_truncate},
    {"sync", l_handle_sync},   {"scan", l_handle_scan},
    {"close", l_handle_close}, {NULL, NULL},
};

static const luaL_Reg scan_methods[] = {
    {"add", l_scan_add},
    {"result", l_scan_result},
    {NULL, NULL},
};

static const luaL_Reg file_metamethods[] = {
    {"__gc", l_handle_close},
    {"__close", l_handle_close},
    {NULL, NULL},
};

int luaopen_sluice_core_file(lua_State *L)
{
    luaL_newmetatable(L, file_type);
    luaL_setfuncs(L, file_metamethods, 0);
    luaL_newlib(L, file_methods);
    lua_setfield(L, -2, "__index");
    luaL_newmetatable(L, scan_type);
    luaL_newlib(L, scan_methods);
    lua_setfield(L, -2, "__index");
    luaL_newlib(L, file_functions);
    return 1;
}
