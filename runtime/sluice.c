/* SPDX-License-Identifier: MIT */
/* The embedding API of sluice.h, and the table of the modules. */
#include "capabilities.h"
#include "embedded.h"
#include "instance.h"
#include "lz4.h"
#include "modules/writer/writer.h"
#include "sandbox.h"

#include <lualib.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    /* Microseconds that sluice_delete() lets tasks unwind. */
    GRACE = 1000000,
    /* Lua's collector works after each 2^8 bytes that are allocated, not 2^13 as it does by
     * itself: its steps hold up a frame for 50 us, not for 900. */
    COLLECTOR_STEP = 8,
};

/* The core knows no sluice.h: what both number is held together here. */
#define SAME_NUMBER(name) _Static_assert((int)SLUICE_##name == (int)SL_##name, #name)
SAME_NUMBER(CAN_READ_ENVIRONMENT);
SAME_NUMBER(CAN_READ_FILES);
SAME_NUMBER(CAN_WRITE_FILES);
SAME_NUMBER(CAN_CONNECT);
SAME_NUMBER(CAN_LISTEN);
SAME_NUMBER(CAN_SPAWN_PROCESSES);
SAME_NUMBER(CAN_EXIT);
SAME_NUMBER(CAN_DEBUG);
SAME_NUMBER(READ);
SAME_NUMBER(WRITE);
#undef SAME_NUMBER

/* ---- the modules ---- */

int luaopen_sluice_core_json(lua_State *L);
int luaopen_sluice_core_socket(lua_State *L);
int luaopen_sluice_core_system(lua_State *L);
int luaopen_sluice_core_process(lua_State *L);
int luaopen_sluice_core_backoff(lua_State *L);
int luaopen_sluice_core_span(lua_State *L);
int luaopen_sluice_core_terminal(lua_State *L);
int luaopen_sluice_core_file(lua_State *L);
int luaopen_sluice_core_http(lua_State *L);
int luaopen_sluice_core_sse(lua_State *L);
int luaopen_sluice_core_delta(lua_State *L);
int luaopen_sluice_core_lru(lua_State *L);
int luaopen_sluice_core_digest(lua_State *L);
int luaopen_sluice_core_bundle(lua_State *L);
int luaopen_sluice_core_log(lua_State *L);
#if defined(SLUICE_WITHOUT_SERVER) || defined(SLUICE_WITHOUT_REDIS) ||                             \
    defined(SLUICE_WITHOUT_SQLITE)
/** In the place of a module that `make WITHOUT=` left out; require passes its name. */
static int l_left_out(lua_State *L)
{
    return luaL_error(L, "module '%s' was left out of this build (make WITHOUT=)",
                      luaL_checkstring(L, 1));
}
#endif
#ifndef SLUICE_WITHOUT_SERVER
int luaopen_sluice_core_server(lua_State *L);
#else
#define luaopen_sluice_core_server l_left_out
#endif
#ifndef SLUICE_WITHOUT_REDIS
int luaopen_sluice_core_redis(lua_State *L);
#else
#define luaopen_sluice_core_redis l_left_out
#endif
#ifndef SLUICE_WITHOUT_SQLITE
int luaopen_sluice_core_sqlite(lua_State *L);
#else
#define luaopen_sluice_core_sqlite l_left_out
#endif
/* in the binary only: Debian's static library is not for shared objects */
__attribute__((weak)) int luaopen_cjson(lua_State *L);
__attribute__((weak)) int luaopen_cjson_safe(lua_State *L);

static const luaL_Reg core_modules[] = {
    {"sluice.core.task", luaopen_sluice_core_task},
    {"sluice.core.json", luaopen_sluice_core_json},
    {"sluice.core.socket", luaopen_sluice_core_socket},
    {"sluice.core.system", luaopen_sluice_core_system},
    {"sluice.core.process", luaopen_sluice_core_process},
    {"sluice.core.backoff", luaopen_sluice_core_backoff},
    {"sluice.core.span", luaopen_sluice_core_span},
    {"sluice.core.terminal", luaopen_sluice_core_terminal},
    {"sluice.core.file", luaopen_sluice_core_file},
    {"sluice.core.http", luaopen_sluice_core_http},
    {"sluice.core.sse", luaopen_sluice_core_sse},
    {"sluice.core.delta", luaopen_sluice_core_delta},
    {"sluice.core.lru", luaopen_sluice_core_lru},
    {"sluice.core.digest", luaopen_sluice_core_digest},
    {"sluice.core.bundle", luaopen_sluice_core_bundle},
    {"sluice.core.log", luaopen_sluice_core_log},
    {"sluice.core.server", luaopen_sluice_core_server},
    {"sluice.core.redis", luaopen_sluice_core_redis},
    {"sluice.core.sqlite", luaopen_sluice_core_sqlite},
    {"sluice.core.host", luaopen_sluice_core_host},
    {"cjson", luaopen_cjson},
    {"cjson.safe", luaopen_cjson_safe},
    {NULL, NULL},
};

/** Loads an embedded file: its function, or raises. The bytes are no garbage of Lua's. */
static void load_embedded(lua_State *L, const struct sl_embedded_file *file)
{
    const sl_lz4_dictionary dictionary = {sl_library_dictionary, sl_library_dictionary_size};
    size_t size = file->unpacked_size;
    void *user;
    lua_Alloc allocate = lua_getallocf(L, &user);
    unsigned char *bytes = allocate(user, NULL, 0, size);
    if (!bytes)
        luaL_error(L, "not enough memory");
    int status = LUA_ERRSYNTAX;
    if (sl_lz4_unpack(file->bytes, file->size, &dictionary, bytes, size))
        status = luaL_loadbufferx(L, (const char *)bytes, size, file->name, NULL);
    else
        lua_pushfstring(L, "the embedded module '%s' is damaged", file->name);
    allocate(user, bytes, size, 0);
    if (status != LUA_OK)
        lua_error(L);
}

/** A searcher of package.searchers: the modules of the embedded library. */
static int l_search_library(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    for (const struct sl_embedded_file *file = sl_library; file->name; file++) {
        if (strcmp(file->name, name) != 0)
            continue;
        load_embedded(L, file);
        sl_sandbox_push_environment(L);
        if (lua_isnil(L, -1) || !lua_setupvalue(L, -2, 1))
            lua_pop(L, 1);
        lua_pushfstring(L, "embedded:%s", name);
        return 2;
    }
    lua_pushfstring(L, "no embedded module '%s'", name);
    return 1;
}

/** Where our searcher stands in the array at the top; 0: nowhere. */
static lua_Integer find_searcher(lua_State *L)
{
    lua_Integer found = 0;
    for (lua_Integer i = luaL_len(L, -1); i > 0 && !found; i--) {
        lua_rawgeti(L, -1, i);
        found = lua_tocfunction(L, -1) == l_search_library ? i : 0;
        lua_pop(L, 1);
    }
    return found;
}

static void add_modules(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    luaL_setfuncs(L, core_modules, 0);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "searchers");
    for (lua_Integer i = luaL_len(L, -1); i >= 2; i--) {
        lua_rawgeti(L, -1, i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushcfunction(L, l_search_library);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 3);
}

/** Takes them out of a host's state again; what a script has loaded stays in package.loaded. */
static void remove_modules(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    for (const luaL_Reg *entry = core_modules; entry->name; entry++) {
        lua_pushnil(L);
        lua_setfield(L, -2, entry->name);
    }
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "searchers");
    lua_Integer count = luaL_len(L, -1);
    lua_Integer own = find_searcher(L);
    for (lua_Integer i = own; own > 0 && i <= count; i++) {
        lua_rawgeti(L, -1, i + 1);
        lua_rawseti(L, -2, i);
    }
    lua_pop(L, 3);
}

/* ---- calling back ---- */

/** Pops the error of a call that failed, and tells the host. */
void sl_instance_tell_error(sluice *s)
{
    const char *text = lua_type(s->L, -1) == LUA_TSTRING ? lua_tostring(s->L, -1) : NULL;
    if (s->options.on_error)
        s->options.on_error(s->options.callback_user, text ? text : "an error without a text");
    lua_pop(s->L, 1);
}

bool sl_instance_is_here(const sluice *s)
{
    return pthread_equal(s->thread, pthread_self());
}

int sl_instance_enter(sluice *s)
{
    if (!sl_instance_is_here(s))
        return SLUICE_ETHREAD;
    if (s->busy)
        return SLUICE_EBUSY;
    if (!lua_checkstack(s->L, SL_STACK_NEEDED))
        return SLUICE_ENOMEM;
    s->busy = true;
    return SLUICE_OK;
}

/** Ends a call that may have called back. The handle may be gone afterwards. */
void sl_instance_leave(sluice *s)
{
    s->busy = false;
    if (s->deleted)
        sluice_delete(s);
}

/** A loop of the host's learns when the next pump is due. */
void sl_instance_announce_due(sluice *s)
{
    if (s->core->backend->wake_at)
        s->core->backend->wake_at(s->core->backend, sl_core_next_due(s->core));
}

/* ---- making an instance ---- */

/** Under AddressSanitizer each block stays its own, so that a wrong use of it is seen. */
static void set_up_heap(sluice *s)
{
    s->heap.allocator = s->options.allocator;
    s->heap.allocator_user = s->options.allocator_user;
    s->heap.limit = s->options.memory_limit;
#ifndef __SANITIZE_ADDRESS__
    s->heap.pooled = s->options.allocator == sl_memory_default;
#endif
}

static int host_watch(sl_backend *backend, int fd, unsigned events)
{
    host_backend *self = (host_backend *)backend;
    return self->loop.watch(self->loop.user, fd, events);
}

static void host_wake_at(sl_backend *backend, int64_t delay)
{
    host_backend *self = (host_backend *)backend;
    self->loop.wake_at(self->loop.user, delay > LONG_MAX ? LONG_MAX : (long)delay);
}

static void host_close(sl_backend *backend)
{
    (void)backend;
}

static int l_open_state(lua_State *L)
{
    sluice *s = lua_touserdata(L, 1);
    unsigned capabilities = s->options.capabilities;
    if (s->owns_state) {
        if (!(capabilities & SLUICE_CAN_READ_ENVIRONMENT)) {
            lua_pushboolean(L, 1);
            lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
        }
        luaL_openlibs(L);
        lua_gc(L, LUA_GCINC, 0, 0, COLLECTOR_STEP);
    }
    add_modules(L);
    luaL_requiref(L, "sluice.core.task", luaopen_sluice_core_task, 0);
    sl_coroutine_install(L);
    if (s->owns_state)
        sl_require_install(L);
    lua_getglobal(L, "require");
    lua_setfield(L, -2, "require");
    lua_rawsetp(L, LUA_REGISTRYINDEX, s); /* for l_leave_state and l_warm_up */
    if (!s->owns_state)
        return 0;
    sl_capabilities_apply(L, capabilities, s->options.untrusted);
    lua_getglobal(L, "os");
    lua_getfield(L, -2, "exit");
    if (lua_isnil(L, -1))
        return luaL_error(L, "sluice.core.task has no exit");
    lua_setfield(L, -2, "exit");
    if (!s->options.untrusted)
        return 0;
    luaL_requiref(L, "sluice.core.json", luaopen_sluice_core_json, 0);
    sl_sandbox_apply(L, capabilities);
    return 0;
}

/** 0: no thread. */
static size_t writer_queue(const sluice_options *options)
{
    if (options->no_writer_thread)
        return 0;
    return options->writer_queue ? options->writer_queue : SL_WRITER_QUEUE;
}

static int open_instance(sluice *s)
{
    sl_core_options options = {
        .allocator = s->options.allocator,
        .allocator_user = s->options.allocator_user,
        .capabilities = s->options.capabilities,
        .library_source = sl_library_source,
        .limits =
            {
                .hosts = s->options.allowed_hosts,
                .methods = s->options.allowed_methods,
                .environment = s->options.allowed_environment,
                .instructions = s->options.instruction_limit,
                .requests = s->options.request_limit,
                .bytes = s->options.byte_limit,
            },
        .on_error = s->options.on_error,
        .on_error_user = s->options.callback_user,
        .on_log = s->options.on_log,
        .on_log_user = s->options.callback_user,
        .log_descriptor = s->options.log_descriptor,
        .writer_queue = writer_queue(&s->options),
    };
    if (s->options.loop) {
        s->backend.base =
            (sl_backend){.watch = host_watch, .wake_at = host_wake_at, .close = host_close};
        options.backend = &s->backend.base;
    }
    s->core = sl_core_new(&options);
    if (!s->core)
        return SLUICE_ENOMEM;
    if (!lua_checkstack(s->L, SL_STACK_NEEDED) || sl_core_attach(s->core, s->L) != LUA_OK)
        return SLUICE_ENOMEM;
    s->L = s->core->L;
    if (!lua_checkstack(s->L, SL_STACK_NEEDED))
        return SLUICE_ENOMEM;
    lua_pushcfunction(s->L, l_open_state);
    lua_pushlightuserdata(s->L, s);
    if (lua_pcall(s->L, 1, 0, 0) == LUA_OK)
        return SLUICE_OK;
    sl_instance_tell_error(s);
    return SLUICE_ENOMEM;
}

/** Copies a struct that begins with its size: an older, shorter one, or a newer one that asks for
 * nothing that is not known here. */
static bool read_sized(void *to, size_t size, const void *from)
{
    size_t given;
    memcpy(&given, from, sizeof given);
    if (given < sizeof given || given % sizeof(void *) != 0 || given > 64 * size)
        return false;
    for (size_t i = size; i < given; i++)
        if (((const char *)from)[i] != 0)
            return false;
    memset(to, 0, size);
    memcpy(to, from, given < size ? given : size);
    return true;
}

/** What is wrong with the options, else NULL. */
static const char *check_options(const sluice_options *options)
{
    if (options->argc < 0 || (options->argc > 0 && !options->argv))
        return "argc without argv";
    if (options->capabilities & ~(unsigned)SLUICE_CAN_EVERYTHING)
        return "a capability that does not exist";
    if (options->untrusted != 0 && options->untrusted != 1)
        return "untrusted is 0 or 1";
    if (options->no_writer_thread != 0 && options->no_writer_thread != 1)
        return "no_writer_thread is 0 or 1";
    if (options->log_descriptor < 0)
        return "log_descriptor is a descriptor, or 0 for none";
    if (options->state && options->memory_limit)
        return "memory_limit cannot hold in a lua_State of the host's";
    if (options->state && options->instruction_limit)
        return "instruction_limit cannot hold in a lua_State of the host's";
    if (options->state && options->untrusted)
        return "untrusted cannot hold in a lua_State of the host's";
    if (options->untrusted && (!options->memory_limit || !options->instruction_limit))
        return "untrusted needs a memory_limit and an instruction_limit";
    bool has_limits = options->untrusted || options->instruction_limit;
    if (has_limits && (options->capabilities & SLUICE_CAN_DEBUG))
        return "no limit holds against SLUICE_CAN_DEBUG";
    return NULL;
}

/** Copies options and loop into the instance; NULL, or what is wrong with them. */
static const char *take_options(sluice *s, const sluice_options *options)
{
    if (!options || !read_sized(&s->options, sizeof s->options, options))
        return "options of a size that this library does not know";
    const sluice_loop *loop = s->options.loop;
    if (loop && !read_sized(&s->backend.loop, sizeof s->backend.loop, loop))
        return "a loop of a size that this library does not know";
    if (loop && (!s->backend.loop.watch || !s->backend.loop.wake_at))
        return "a loop without watch or wake_at";
    return check_options(&s->options);
}

static int make_instance(sluice *s)
{
    s->owns_state = s->options.state == NULL;
    s->thread = pthread_self();
    set_up_heap(s);
    s->L = s->owns_state ? lua_newstate(sl_heap_allocate, &s->heap) : s->options.state;
    s->busy = true;
    int status = s->L ? open_instance(s) : SLUICE_ENOMEM;
    s->busy = false;
    return status;
}

int sluice_new(sluice **out, const sluice_options *options)
{
    sluice given, *s;
    if (!out)
        return SLUICE_EINVAL;
    *out = NULL;
    memset(&given, 0, sizeof given);
    const char *wrong = take_options(&given, options);
    if (wrong) {
        if (given.options.on_error)
            given.options.on_error(given.options.callback_user, wrong);
        return SLUICE_EINVAL;
    }
    if (given.options.state && sl_core_find(given.options.state))
        return SLUICE_EBUSY;
    if (!given.options.allocator)
        given.options.allocator = sl_memory_default;
    s = given.options.allocator(given.options.allocator_user, NULL, sizeof *s);
    if (!s)
        return SLUICE_ENOMEM;
    *s = given;
    int status = make_instance(s);
    if (status < 0) {
        sluice_delete(s);
        return status;
    }
    *out = s;
    return SLUICE_OK;
}

/* ---- pumping ---- */

int sluice_pump(sluice *s, unsigned budget_us)
{
    int status = sl_instance_enter(s);
    if (status < 0)
        return status;
    sl_chunks_forget_told(s);
    int more = sl_core_pump(s->core, budget_us);
    sl_chunks_tell(s, false);
    if (s->deleted)
        more = 0;
    sl_instance_leave(s);
    return more;
}

/* Upvalues: none. Stack: the instance. */
static int l_warm_up(lua_State *L)
{
    const sluice *s = lua_touserdata(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, s);
    lua_getfield(L, -1, "require");
    lua_pushstring(L, sl_library_warm_up);
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "run");
    lua_pushboolean(L, s->options.capabilities & SLUICE_CAN_CONNECT);
    lua_call(L, 1, 0);
    lua_gc(L, LUA_GCCOLLECT);
    return 0;
}

int sluice_warm_up(sluice *s)
{
    int status = sl_instance_enter(s);
    if (status < 0)
        return status;
    lua_pushcfunction(s->L, l_warm_up);
    lua_pushlightuserdata(s->L, s);
    int result = lua_pcall(s->L, 1, 0, 0);
    if (result != LUA_OK) {
        sl_instance_tell_error(s);
        status = result == LUA_ERRMEM ? SLUICE_ENOMEM : SLUICE_ESCRIPT;
    }
    sl_instance_leave(s);
    return status;
}

int sluice_wait(sluice *s, long timeout_us)
{
    if (!s->core->backend->poll)
        return SLUICE_EUNSUPPORTED;
    int status = sl_instance_enter(s);
    if (status < 0)
        return status;
    if (sl_core_wait(s->core, timeout_us) < 0)
        status = SLUICE_ESTALLED;
    sl_instance_leave(s);
    return status;
}

long sluice_next_due(sluice *s)
{
    if (!sl_instance_is_here(s))
        return SLUICE_ETHREAD;
    int64_t delay = sl_core_next_due(s->core);
    return delay > LONG_MAX ? LONG_MAX : (long)delay;
}

int sluice_ready(sluice *s, int fd, unsigned events)
{
    int status = sl_instance_enter(s);
    if (status < 0)
        return status;
    sl_now_update(s->core);
    sl_io_notify(s->core, fd, events);
    sl_instance_announce_due(s);
    sl_instance_leave(s);
    return SLUICE_OK;
}

void sluice_wake(sluice *s)
{
    const unsigned long long one = 1;
    ssize_t written = write(s->core->wake_io.fd, &one, sizeof one);
    (void)written; /* a full counter is a wake-up too */
}

void sluice_interrupt(sluice *s)
{
    sl_slice_interrupt(s->core);
    sluice_wake(s);
}

int sluice_reopen_log(sluice *s)
{
    int status = sl_instance_enter(s);
    if (status < 0)
        return status;
    status = sl_writer_reopen(s->core);
    sl_instance_leave(s);
    return status;
}

/* ---- the end ---- */

/** Leaves a host's state as it was found. */
static int l_leave_state(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, lua_touserdata(L, 1)) != LUA_TTABLE)
        return 0;
    sl_coroutine_restore(L, -1);
    sl_functions_remove(L, lua_touserdata(L, 1));
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, lua_touserdata(L, 1));
    remove_modules(L);
    return 0;
}

static void close_state(sluice *s)
{
    if (s->owns_state) {
        lua_close(s->L);
        return;
    }
    if (!s->core || sl_core_find(s->L) != s->core)
        return;
    lua_pushcfunction(s->L, l_leave_state);
    lua_pushlightuserdata(s->L, s);
    if (lua_pcall(s->L, 1, 0, 0) != LUA_OK)
        lua_pop(s->L, 1);
    sl_core_detach(s->L);
}

void sluice_delete(sluice *s)
{
    if (!s)
        return;
    if (!sl_instance_is_here(s)) {
        if (s->options.on_error)
            s->options.on_error(s->options.callback_user,
                                "sluice_delete: called on another thread: nothing was freed");
        return;
    }
    if (s->busy) {
        s->deleted = true;
        return;
    }
    s->busy = true;
    if (s->L)
        lua_checkstack(s->L, SL_STACK_NEEDED);
    if (s->core) {
        sl_core_shut_down(s->core, GRACE);
        sl_calls_close(s);
        sl_watches_close(s);
        sl_chunks_tell(s, true);
        sl_core_close(s->core);
        sl_chunks_forget_told(s);
    }
    if (s->L)
        close_state(s);
    if (s->core)
        sl_core_delete(s->core);
    sl_heap_fini(&s->heap);
    s->options.allocator(s->options.allocator_user, s, 0);
}

const char *sluice_strerror(int err)
{
    switch (err) {
    case SLUICE_ENOMEM:
        return "no memory, or no descriptor left";
    case SLUICE_EINVAL:
        return "an argument that cannot be";
    case SLUICE_EBUSY:
        return "called from inside a callback of the same handle";
    case SLUICE_ESYNTAX:
        return "the chunk does not compile";
    case SLUICE_ESCRIPT:
        return "the chunk raised an error";
    case SLUICE_ECANCELLED:
        return "the task was cancelled";
    case SLUICE_ESTALLED:
        return "every task waits and nothing can wake one";
    case SLUICE_EEXIT:
        return "the script ended the program";
    case SLUICE_EUNSUPPORTED:
        return "the loop is the host's";
    case SLUICE_ELIMIT:
        return "more instructions than the options allow";
    case SLUICE_ETHREAD:
        return "called on another thread than the handle's";
    default:
        return "success";
    }
}
