/* SPDX-License-Identifier: MIT */
/* The embedding API of sluice.h, and the table of the modules. */
#include "sluice.h"

#include "core/internal.h"
#include "embedded.h"
#include "modules/json/json.h"

#include <lualib.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/** A chunk that sluice_spawn started and whose end was not told yet. */
typedef struct spawned {
    struct spawned *next;
    sl_task *task;
    /** Keeps the task's handle. */
    int ref;
    sluice_done done;
    void *user;
} spawned;

/** A host's loop as the core sees it. */
typedef struct host_backend {
    sl_backend base;
    sluice_loop loop;
} host_backend;

struct sluice {
    sl_core *core;
    lua_State *L;
    spawned *spawned;
    host_backend backend;
    sluice_options options;
    /** Bytes of the Lua heap in use. */
    size_t heap;
    bool owns_state, in_pump, deleted;
};

/* ---- the modules ---- */

int luaopen_sluice_core_json(lua_State *L);
int luaopen_sluice_core_socket(lua_State *L);
int luaopen_sluice_core_system(lua_State *L);
int luaopen_sluice_core_backoff(lua_State *L);
int luaopen_sluice_core_terminal(lua_State *L);
int luaopen_sluice_core_http(lua_State *L);
int luaopen_sluice_core_server(lua_State *L);
/* in the binary only: Debian's static library is not for shared objects */
__attribute__((weak)) int luaopen_cjson(lua_State *L);
__attribute__((weak)) int luaopen_cjson_safe(lua_State *L);

static const luaL_Reg core_modules[] = {
    {"sluice.core.task", luaopen_sluice_core_task},
    {"sluice.core.json", luaopen_sluice_core_json},
    {"sluice.core.socket", luaopen_sluice_core_socket},
    {"sluice.core.system", luaopen_sluice_core_system},
    {"sluice.core.backoff", luaopen_sluice_core_backoff},
    {"sluice.core.terminal", luaopen_sluice_core_terminal},
    {"sluice.core.http", luaopen_sluice_core_http},
    {"sluice.core.server", luaopen_sluice_core_server},
    {"cjson", luaopen_cjson},
    {"cjson.safe", luaopen_cjson_safe},
    {NULL, NULL},
};

/** The Lua library, as the build embedded it. */
extern const struct sl_embedded_file sl_library[];

/** A searcher of package.searchers: the modules of the embedded library. */
static int l_search_library(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    for (const struct sl_embedded_file *file = sl_library; file->name; file++) {
        if (strcmp(file->name, name) != 0)
            continue;
        if (luaL_loadbufferx(L, (const char *)file->bytes, file->size, name, "b") != LUA_OK)
            return lua_error(L);
        lua_pushfstring(L, "embedded:%s", name);
        return 2;
    }
    lua_pushfstring(L, "no embedded module '%s'", name);
    return 1;
}

static void add_modules(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    luaL_setfuncs(L, core_modules, 0);
    lua_pop(L, 1);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "searchers");
    lua_Integer count = luaL_len(L, -1);
    for (lua_Integer i = count; i >= 2; i--) {
        lua_rawgeti(L, -1, i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushcfunction(L, l_search_library);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 2);
}

/* ---- what an instance may do ---- */

/** Functions of the standard library that reach outside, and the capability each one needs. */
static const struct guarded {
    const char *library, *name;
    unsigned capability;
} guarded_functions[] = {
    {"os", "getenv", SLUICE_CAN_READ_ENVIRONMENT},
    {"os", "execute", SLUICE_CAN_SPAWN_PROCESSES},
    {"os", "remove", SLUICE_CAN_WRITE_FILES},
    {"os", "rename", SLUICE_CAN_WRITE_FILES},
    {"os", "tmpname", SLUICE_CAN_WRITE_FILES},
    {"io", "popen", SLUICE_CAN_SPAWN_PROCESSES},
    {"io", "tmpfile", SLUICE_CAN_WRITE_FILES},
    {"io", "open", SLUICE_CAN_READ_FILES | SLUICE_CAN_WRITE_FILES},
    {"io", "input", SLUICE_CAN_READ_FILES},
    {"io", "output", SLUICE_CAN_WRITE_FILES},
    {"io", "lines", SLUICE_CAN_READ_FILES},
    {"package", "loadlib", SLUICE_CAN_READ_FILES | SLUICE_CAN_SPAWN_PROCESSES},
    {"_G", "dofile", SLUICE_CAN_READ_FILES},
    {"_G", "loadfile", SLUICE_CAN_READ_FILES},
};

static int l_refused(lua_State *L)
{
    return luaL_error(L, "%s is not allowed here: the host did not grant this capability",
                      lua_tostring(L, lua_upvalueindex(1)));
}

static void refuse_functions(lua_State *L, unsigned capabilities)
{
    for (size_t i = 0; i < sizeof guarded_functions / sizeof guarded_functions[0]; i++) {
        const struct guarded *guarded = &guarded_functions[i];
        if ((capabilities & guarded->capability) == guarded->capability)
            continue;
        lua_getglobal(L, guarded->library);
        lua_pushfstring(L, "%s.%s", guarded->library, guarded->name);
        lua_pushcclosure(L, l_refused, 1);
        lua_setfield(L, -2, guarded->name);
        lua_pop(L, 1);
    }
    if (capabilities & SLUICE_CAN_READ_FILES)
        return;
    /* the searchers that look for files: what stays is preload and the library */
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "searchers");
    for (lua_Integer i = luaL_len(L, -1); i > 2; i--) {
        lua_pushnil(L);
        lua_rawseti(L, -2, i);
    }
    lua_pop(L, 2);
}

/* ---- making an instance ---- */

static void *heap_allocate(void *user, void *block, size_t old_size, size_t size)
{
    sluice *s = user;
    size_t before = block ? old_size : 0;
    if (s->options.memory_limit && size > before &&
        s->heap + (size - before) > s->options.memory_limit)
        return NULL;
    if (size == 0) {
        if (block)
            s->options.allocator(s->options.allocator_user, block, 0);
        s->heap -= before;
        return NULL;
    }
    void *fresh = s->options.allocator(s->options.allocator_user, block, size);
    if (fresh)
        s->heap = s->heap - before + size;
    return fresh;
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
    }
    add_modules(L);
    luaL_requiref(L, "sluice.core.task", luaopen_sluice_core_task, 0);
    sl_coroutine_install(L);
    if (!s->owns_state)
        return 0;
    sl_require_install(L);
    refuse_functions(L, capabilities);
    lua_getglobal(L, "os");
    lua_getfield(L, -3, "exit");
    if (lua_isnil(L, -1))
        return luaL_error(L, "sluice.core.task has no exit");
    lua_setfield(L, -2, "exit");
    return 0;
}

static int open_instance(sluice *s)
{
    sl_core_options options = {
        .allocator = s->options.allocator,
        .allocator_user = s->options.allocator_user,
        .capabilities = s->options.capabilities,
        .on_error = s->options.on_error,
        .on_error_user = s->options.callback_user,
        .on_log = s->options.on_log,
        .on_log_user = s->options.callback_user,
    };
    if (s->options.loop) {
        s->backend.loop = *s->options.loop;
        s->backend.base =
            (sl_backend){.watch = host_watch, .wake_at = host_wake_at, .close = host_close};
        options.backend = &s->backend.base;
    }
    s->core = sl_core_new(&options);
    if (!s->core || sl_core_attach(s->core, s->L) != LUA_OK)
        return SLUICE_ENOMEM;
    lua_pushcfunction(s->L, l_open_state);
    lua_pushlightuserdata(s->L, s);
    if (lua_pcall(s->L, 1, 0, 0) == LUA_OK)
        return SLUICE_OK;
    if (s->options.on_error)
        s->options.on_error(s->options.callback_user, lua_tostring(s->L, -1));
    lua_pop(s->L, 1);
    return SLUICE_ENOMEM;
}

int sluice_new(sluice **out, const sluice_options *options)
{
    *out = NULL;
    if (!options || options->size != sizeof *options)
        return SLUICE_EINVAL;
    if (options->loop && options->loop->size != sizeof(sluice_loop))
        return SLUICE_EINVAL;
    void *(*allocator)(void *, void *, size_t) =
        options->allocator ? options->allocator : sl_memory_default;
    sluice *s = allocator(options->allocator_user, NULL, sizeof *s);
    if (!s)
        return SLUICE_ENOMEM;
    memset(s, 0, sizeof *s);
    s->options = *options;
    s->options.allocator = allocator;
    s->owns_state = options->state == NULL;
    s->L = s->owns_state ? lua_newstate(heap_allocate, s) : options->state;
    int status = s->L ? open_instance(s) : SLUICE_ENOMEM;
    if (status < 0) {
        sluice_delete(s);
        return status;
    }
    *out = s;
    return SLUICE_OK;
}

/* ---- spawning ---- */

/** What l_spawn needs, and gives back. */
typedef struct spawn_call {
    sluice *s;
    const char *name, *chunk;
    size_t len;
    spawned *row;
    int status;
} spawn_call;

static int l_spawn(lua_State *L)
{
    spawn_call *call = lua_touserdata(L, 1);
    const sluice_options *options = &call->s->options;
    lua_settop(L, 0);
    const char *mode = options->capabilities & SLUICE_CAN_READ_FILES ? "bt" : "t";
    if (luaL_loadbufferx(L, call->chunk, call->len, call->name, mode) != LUA_OK) {
        call->status = SLUICE_ESYNTAX;
        return lua_error(L);
    }
    luaL_checkstack(L, options->argc + 4, NULL);
    for (int i = 0; i < options->argc; i++)
        lua_pushstring(L, options->argv[i]);
    sl_core *core = call->s->core;
    call->row->task = sl_task_spawn(L, core, &core->root);
    call->row->task->observed = true;
    call->row->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

int sluice_spawn(sluice *s, const char *name, const char *chunk, size_t len, sluice_done done,
                 void *user)
{
    if (s->in_pump)
        return SLUICE_EBUSY;
    spawned *row = sl_alloc_array(s->core, 1, sizeof *row);
    if (!row)
        return SLUICE_ENOMEM;
    spawn_call call = {s, name, chunk, len, row, SLUICE_ENOMEM};
    lua_pushcfunction(s->L, l_spawn);
    lua_pushlightuserdata(s->L, &call);
    if (lua_pcall(s->L, 1, 0, 0) != LUA_OK) {
        if (s->options.on_error)
            s->options.on_error(s->options.callback_user, lua_tostring(s->L, -1));
        lua_pop(s->L, 1);
        sl_free(s->core, row);
        return call.status;
    }
    row->done = done;
    row->user = user;
    row->next = s->spawned;
    s->spawned = row;
    return (int)(row->task->base.serial & INT_MAX);
}

int sluice_cancel(sluice *s, int task, const char *reason)
{
    if (s->in_pump)
        return SLUICE_EBUSY;
    for (spawned *row = s->spawned; row; row = row->next)
        if ((int)(row->task->base.serial & INT_MAX) == task)
            sl_task_cancel(row->task, reason);
    return SLUICE_OK;
}

/* ---- telling the ends ---- */

static void *json_allocate(void *user, void *block, size_t old_size, size_t size)
{
    const sluice *s = user;
    (void)old_size;
    return s->options.allocator(s->options.allocator_user, block, size);
}

/* Stack: the handle, the buffer. Leaves the text of the result, or of the error. */
static int l_result_text(lua_State *L)
{
    sl_task *task = lua_touserdata(L, 1);
    sl_json_buffer *buffer = lua_touserdata(L, 2);
    if (task->core->exiting) {
        lua_pushfstring(L, "%d", task->core->exit_status);
        return 1;
    }
    lua_getiuservalue(L, 1, 1);
    if (task->failed) {
        sl_push_error_text(L, 3);
        return 1;
    }
    if (task->results > 1)
        lua_rawgeti(L, 3, 1);
    if (sl_json_encode(L, -1, NULL, buffer) < 0)
        return luaL_error(L, "the result of the chunk: %s", lua_tostring(L, -1));
    lua_pushlstring(L, buffer->data, buffer->length);
    return 1;
}

static int end_status(const sl_task *task)
{
    if (task->core->exiting)
        return SLUICE_EEXIT;
    if (task->failed)
        return task->base.cancelled ? SLUICE_ECANCELLED : SLUICE_ESCRIPT;
    return SLUICE_OK;
}

static void tell_end(sluice *s, spawned *row)
{
    int status = end_status(row->task);
    lua_State *L = s->L;
    sl_json_buffer buffer;
    sl_json_buffer_init(&buffer, json_allocate, s);
    lua_pushcfunction(L, l_result_text);
    lua_rawgeti(L, LUA_REGISTRYINDEX, row->ref);
    lua_pushlightuserdata(L, &buffer);
    if (lua_pcall(L, 2, 1, 0) != LUA_OK)
        status = SLUICE_ESCRIPT;
    sl_json_buffer_fini(&buffer);
    size_t len = 0;
    const char *text = lua_tolstring(L, -1, &len);
    if (row->done)
        row->done(row->user, status, text ? text : "out of memory", text ? len : 13);
    lua_rawsetp(L, LUA_REGISTRYINDEX, s); /* keeps the text until the next one */
    luaL_unref(L, LUA_REGISTRYINDEX, row->ref);
    sl_free(s->core, row);
}

static void tell_ends(sluice *s)
{
    spawned **link = &s->spawned;
    while (*link) {
        spawned *row = *link;
        if (row->task->state != SL_TASK_ENDED) {
            link = &row->next;
            continue;
        }
        *link = row->next;
        tell_end(s, row);
    }
}

/* ---- pumping ---- */

int sluice_pump(sluice *s, unsigned budget_us)
{
    if (s->in_pump)
        return SLUICE_EBUSY;
    s->in_pump = true;
    int more = sl_core_pump(s->core, budget_us);
    tell_ends(s);
    s->in_pump = false;
    if (s->deleted) {
        sluice_delete(s);
        return 0;
    }
    return more;
}

int sluice_wait(sluice *s, long timeout_us)
{
    if (s->in_pump)
        return SLUICE_EBUSY;
    if (!s->core->backend->poll)
        return SLUICE_EUNSUPPORTED;
    return sl_core_wait(s->core, timeout_us) < 0 ? SLUICE_ESTALLED : SLUICE_OK;
}

long sluice_next_due(sluice *s)
{
    int64_t delay = sl_core_next_due(s->core);
    return delay > LONG_MAX ? LONG_MAX : (long)delay;
}

int sluice_ready(sluice *s, int fd, unsigned events)
{
    if (s->in_pump)
        return SLUICE_EBUSY;
    sl_now_update(s->core);
    sl_io_notify(s->core, fd, events);
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

/* ---- the end ---- */

static int l_detach(lua_State *L)
{
    sl_core_detach(L);
    return 0;
}

static void close_state(sluice *s)
{
    if (s->owns_state) {
        lua_close(s->L);
        return;
    }
    lua_pushcfunction(s->L, l_detach);
    if (lua_pcall(s->L, 0, 0, 0) != LUA_OK)
        lua_pop(s->L, 1);
}

void sluice_delete(sluice *s)
{
    if (!s)
        return;
    if (s->in_pump) {
        s->deleted = true;
        return;
    }
    if (s->core) {
        sl_core_shut_down(s->core, 1000000);
        sl_core_close(s->core);
    }
    while (s->spawned) {
        spawned *row = s->spawned;
        s->spawned = row->next;
        sl_free(s->core, row);
    }
    if (s->L)
        close_state(s);
    if (s->core)
        sl_core_delete(s->core);
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
    default:
        return "success";
    }
}
