/* SPDX-License-Identifier: MIT */
/* Functions of the host's that Lua waits for, and descriptors of the host's. */
#include "check.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <pthread.h>
#include <unistd.h>

/** What the host's functions remember. */
typedef struct host {
    sluice *s;
    sluice_call open[300];
    int calls, cancelled;
    sluice_call last_cancelled;
    char arguments[256];
} host;

static void on_later(void *user, sluice_call call, const char *arguments, size_t len)
{
    host *self = user;
    CHECK(call != 0 && strlen(arguments) == len);
    snprintf(self->arguments, sizeof self->arguments, "%s", arguments);
    self->open[self->calls++] = call;
}

static void on_cancelled(void *user, sluice_call call)
{
    host *self = user;
    self->cancelled++;
    self->last_cancelled = call;
}

static void on_echo(void *user, sluice_call call, const char *arguments, size_t len)
{
    host *self = user;
    CHECK(sluice_complete(self->s, call, arguments, len) == SLUICE_OK);
    CHECK(sluice_complete(self->s, call, arguments, len) == 1);
}

static int complete(host *self, int which, const char *json)
{
    return sluice_complete(self->s, self->open[which], json, json ? strlen(json) : 0);
}

static void open_host(host *self)
{
    memset(self, 0, sizeof *self);
    self->s = open_plain();
    CHECK(sluice_register(self->s, "later", on_later, on_cancelled, self) == SLUICE_OK);
    CHECK(sluice_register(self->s, "echo", on_echo, NULL, self) == SLUICE_OK);
}

static void pump_until_idle(sluice *s)
{
    while (sluice_pump(s, 1000) > 0)
        ;
}

static void expect(const outcome *end, int status, const char *text)
{
    if (end->calls != 1 || end->status != status || !strstr(end->text, text)) {
        fprintf(stderr, "%d calls, status %d: %s\n not: %s\n", end->calls, end->status, end->text,
                text);
        exit(1);
    }
}

static void completed(void)
{
    host self;
    outcome end;
    open_host(&self);
    CHECK(spawn(self.s,
                "local host = require 'sluice.host'\n"
                "local answer = host.later(1, nil, { x = 'y' }, 'z')\n"
                "return { answer.text, answer.list[2] }",
                &end) > 0);
    pump_until_idle(self.s);
    CHECK(self.calls == 1 && strcmp(self.arguments, "[1,null,{\"x\":\"y\"},\"z\"]") == 0);
    CHECK(!end.calls);
    char answer[] = "{\"text\":\"good\",\"list\":[1,2]}";
    CHECK(complete(&self, 0, answer) == SLUICE_OK);
    memset(answer, '?', sizeof answer - 1); /* not needed after the call */
    CHECK(!end.calls);                      /* no Lua runs before the next pump */
    pump_until_idle(self.s);
    expect(&end, SLUICE_OK, "[\"good\",2]");
    CHECK(complete(&self, 0, "1") == 1);
    /* true without an answer; in a user's coroutine, beside other tasks */
    CHECK(spawn(self.s,
                "local host, task = require 'sluice.host', require 'sluice.task'\n"
                "local each = coroutine.wrap(function() coroutine.yield(host.later()) end)\n"
                "local ticks = 0\n"
                "task.spawn(function() for _ = 1, 3 do task.sleep(0) ticks = ticks + 1 end end)\n"
                "return { each(), ticks }",
                &end) > 0);
    pump_until_idle(self.s);
    CHECK(complete(&self, 1, NULL) == SLUICE_OK);
    pump_until_idle(self.s);
    expect(&end, SLUICE_OK, "[true,3]");
    sluice_delete(self.s);
}

static void at_once(void)
{
    host self;
    outcome end;
    open_host(&self);
    run(self.s,
        "local host, n = require 'sluice.host', 0\n"
        "for i = 1, 1000 do n = n + host.echo(i, 'x')[1] end\n"
        "assert(#host.echo() == 0) return n",
        &end);
    expect(&end, SLUICE_OK, "500500");
    sluice_delete(self.s);
}

static void failed(void)
{
    host self;
    outcome end;
    static const char ask[] = "local value, err = require 'sluice.host'.later()\n"
                              "assert(value == nil)\n"
                              "return err.kind .. '|' .. tostring(err)";
    open_host(&self);
    spawn(self.s, ask, &end);
    pump_until_idle(self.s);
    CHECK(sluice_fail(self.s, self.open[0], "NotFound", "there is no such door") == SLUICE_OK);
    CHECK(sluice_fail(self.s, self.open[0], "NotFound", "again") == 1);
    pump_until_idle(self.s);
    expect(&end, SLUICE_OK, "NotFound|");
    CHECK(strstr(end.text, "host.later: there is no such door"));
    spawn(self.s, ask, &end);
    pump_until_idle(self.s);
    CHECK(sluice_fail(self.s, self.open[1], NULL, NULL) == SLUICE_OK);
    pump_until_idle(self.s);
    expect(&end, SLUICE_OK, "HostError|");
    static const char *const broken[] = {"{", "", "nonsense", "1 2"};
    for (int i = 0; i < 4; i++) {
        spawn(self.s, ask, &end);
        pump_until_idle(self.s);
        CHECK(sluice_complete(self.s, self.open[2 + i], broken[i], strlen(broken[i])) == 0);
        pump_until_idle(self.s);
        expect(&end, SLUICE_OK, "the answer of the host is not JSON");
    }
    sluice_delete(self.s);
}

static void cancelled(void)
{
    host self;
    outcome end, other;
    open_host(&self);
    int number = spawn(self.s, "require 'sluice.host'.later()", &end);
    spawn(self.s,
          "local task, host = require 'sluice.task', require 'sluice.host'\n"
          "local ok, err = task.timeout(0.01, host.later) return err.kind",
          &other);
    pump_until_idle(self.s);
    CHECK(self.calls == 2 && self.cancelled == 0);
    CHECK(sluice_cancel(self.s, number, "enough") == SLUICE_OK);
    CHECK(self.cancelled == 1 && self.last_cancelled == self.open[0]);
    CHECK(complete(&self, 0, "1") == 1); /* harmless */
    run_to_end(self.s, &other);
    expect(&other, SLUICE_OK, "TimeoutError");
    CHECK(self.cancelled == 2 && self.last_cancelled == self.open[1]);
    expect(&end, SLUICE_ECANCELLED, "enough");
    /* a place that is used again is another call */
    spawn(self.s, "return require 'sluice.host'.later()", &end);
    pump_until_idle(self.s);
    CHECK(complete(&self, 0, "1") == 1 && complete(&self, 1, "1") == 1);
    CHECK(complete(&self, 2, "5") == 0);
    run_to_end(self.s, &end);
    expect(&end, SLUICE_OK, "5");
    CHECK(self.cancelled == 2);
    sluice_delete(self.s);
}

static void many(void)
{
    enum { COUNT = 300 };
    host self;
    outcome end;
    open_host(&self);
    spawn(self.s,
          "local task, host = require 'sluice.task', require 'sluice.host'\n"
          "local items, sum = {}, 0 for i = 1, 300 do items[i] = i end\n"
          "for i, row in ipairs(task.map(items, host.later,\n"
          "  { concurrency = 300 })) do sum = sum + row.value - i end\n"
          "return sum",
          &end);
    pump_until_idle(self.s);
    CHECK(self.calls == COUNT);
    for (int i = COUNT - 1; i >= 0; i--) {
        char text[16];
        snprintf(text, sizeof text, "%d", 2 * (i + 1));
        CHECK(complete(&self, i, text) == 0);
    }
    pump_until_idle(self.s);
    expect(&end, SLUICE_OK, "45150");
    sluice_delete(self.s);
}

static void refused(void)
{
    host self;
    outcome end;
    open_host(&self);
    run(self.s, "require 'sluice.host'.latter()", &end);
    expect(&end, SLUICE_ESCRIPT, "the host has no function \"latter\" (did you mean \"later\"?)");
    run(self.s, "require 'sluice.host'.later(print)", &end);
    expect(&end, SLUICE_ESCRIPT, "host.later: argument 1: value: a function cannot be encoded");
    run(self.s, "require 'sluice.host'.x = 1", &end);
    expect(&end, SLUICE_ESCRIPT, "functions come from the host");
    run(self.s,
        "local host = require 'sluice.host'\n"
        "return (('x'):gsub('.', function() host.later() end))",
        &end);
    expect(&end, SLUICE_ESCRIPT, "Lua cannot yield across string.gsub");
    run(self.s,
        "local task, host = require 'sluice.task', require 'sluice.host'\n"
        "task.simulate(function() host.later() end)",
        &end);
    expect(&end, SLUICE_ESCRIPT, "host.later needs real time");
    CHECK(self.calls == 0);
    CHECK(sluice_register(self.s, NULL, on_later, NULL, NULL) == SLUICE_EINVAL);
    CHECK(sluice_register(self.s, "", on_later, NULL, NULL) == SLUICE_EINVAL);
    CHECK(sluice_register(self.s, "x", NULL, NULL, NULL) == SLUICE_EINVAL);
    CHECK(sluice_complete(self.s, 0, "1", 1) == SLUICE_EINVAL);
    CHECK(sluice_complete(self.s, ~(sluice_call)0, "1", 1) == 1);
    /* a second registration takes over, for closures that a script has kept as well */
    run(self.s, "kept = require 'sluice.host'.later", &end);
    CHECK(sluice_register(self.s, "later", on_echo, NULL, &self) == SLUICE_OK);
    run(self.s, "return kept(7)[1]", &end);
    expect(&end, SLUICE_OK, "7");
    sluice_delete(self.s);
}

/* What is open when the instance goes: shielded or not. */
static void deleted(void)
{
    host self;
    outcome end, shielded, late;
    open_host(&self);
    spawn(self.s, "require 'sluice.host'.later()", &end);
    spawn(self.s, "require 'sluice.task'.shield(require 'sluice.host'.later)", &shielded);
    spawn(self.s, "return require 'sluice.host'.later()", &late);
    pump_until_idle(self.s);
    CHECK(self.calls == 3);
    CHECK(complete(&self, 2, "\"never seen\"") == 0);
    sluice_delete(self.s);
    CHECK(self.cancelled == 2);
    CHECK(end.status == SLUICE_ECANCELLED && shielded.status == SLUICE_ECANCELLED);
    CHECK(late.calls == 1);
}

/* Functions of an instance that is gone, in a host's own state. */
static void outlived(void)
{
    lua_State *L = luaL_newstate();
    outcome end;
    CHECK(L);
    luaL_openlibs(L);
    for (int i = 0; i < 3; i++) {
        host self = {0};
        sluice_options options = plain_options();
        options.state = L;
        CHECK(sluice_new(&self.s, &options) == SLUICE_OK);
        CHECK(sluice_register(self.s, "later", on_later, on_cancelled, &self) == SLUICE_OK);
        CHECK(sluice_register(self.s, "echo", on_echo, NULL, &self) == SLUICE_OK);
        run(self.s, "later = require 'sluice.host'.later return require 'sluice.host'.echo(3)[1]",
            &end);
        expect(&end, SLUICE_OK, "3");
        spawn(self.s, "require 'sluice.task'.shield(later)", &end);
        spawn(self.s, "local ok, why = pcall(later, {}, print) assert(not ok)", &end);
        pump_until_idle(self.s);
        sluice_delete(self.s);
        CHECK(self.cancelled == 1);
        static const char poke[] =
            "local ok, why = pcall(later) assert(not ok)\n"
            "assert(why:find('the instance that it belongs to is gone', 1, true), why)\n"
            "assert(next(package.loaded['sluice.core.host']) == nil)\n"
            "collectgarbage()";
        if (luaL_dostring(L, poke) != LUA_OK) {
            fprintf(stderr, "%s\n", lua_tostring(L, -1));
            exit(1);
        }
    }
    lua_close(L);
}

/** A worker's result, where the thread of the handle finds it. */
typedef struct worker {
    pthread_mutex_t lock;
    sluice *s;
    sluice_call call;
    int done;
    int refused;
} worker;

static void *work(void *user)
{
    worker *self = user;
    usleep(20000);
    self->refused = sluice_complete(self->s, self->call, "1", 1) == SLUICE_ETHREAD;
    pthread_mutex_lock(&self->lock);
    self->done = 1;
    pthread_mutex_unlock(&self->lock);
    sluice_wake(self->s);
    return NULL;
}

/* A host without a loop blocks in sluice_wait although only the host can bring something. */
static void from_a_thread(void)
{
    host self;
    outcome end;
    pthread_t thread;
    open_host(&self);
    spawn(self.s, "return require 'sluice.host'.later()", &end);
    pump_until_idle(self.s);
    worker worker = {PTHREAD_MUTEX_INITIALIZER, self.s, self.open[0], 0, 0};
    CHECK(pthread_create(&thread, NULL, work, &worker) == 0);
    while (!end.calls) {
        CHECK(sluice_wait(self.s, -1) == SLUICE_OK);
        pthread_mutex_lock(&worker.lock);
        if (worker.done == 1) {
            worker.done = 2;
            CHECK(complete(&self, 0, "\"from a thread\"") == 0);
        }
        pthread_mutex_unlock(&worker.lock);
        pump_until_idle(self.s);
    }
    pthread_join(thread, NULL);
    CHECK(worker.refused);
    expect(&end, SLUICE_OK, "from a thread");
    CHECK(sluice_wait(self.s, -1) == SLUICE_ESTALLED);
    sluice_delete(self.s);
}

/** A watched pipe. */
typedef struct pipe_end {
    sluice *s;
    int fd, events, calls, stop_in_callback;
    char text[64];
} pipe_end;

static void on_readable(void *user, int fd, unsigned events)
{
    pipe_end *self = user;
    CHECK(fd == self->fd && events == SLUICE_READ);
    CHECK(sluice_pump(self->s, 0) == SLUICE_EBUSY);
    ssize_t got = read(fd, self->text, sizeof self->text - 1);
    CHECK(got >= 0);
    self->text[got] = '\0';
    self->calls++;
    if (self->stop_in_callback)
        CHECK(sluice_watch(self->s, fd, 0, NULL, NULL) == SLUICE_OK);
}

static void watched(void)
{
    int fds[2];
    outcome end;
    CHECK(pipe(fds) == 0);
    pipe_end self = {.s = open_plain(), .fd = fds[0]};
    CHECK(sluice_watch(self.s, fds[0], SLUICE_READ, on_readable, &self) == SLUICE_OK);
    pump_until_idle(self.s);
    CHECK(self.calls == 0);
    CHECK(write(fds[1], "one", 3) == 3);
    CHECK(sluice_wait(self.s, -1) == SLUICE_OK); /* it could come: no stall */
    CHECK(self.calls == 1 && strcmp(self.text, "one") == 0);
    CHECK(write(fds[1], "two", 3) == 3);
    run(self.s, "local task = require 'sluice.task' for i = 1, 5 do task.sleep(0.001) end", &end);
    CHECK(self.calls == 2 && strcmp(self.text, "two") == 0);
    self.stop_in_callback = 1;
    CHECK(write(fds[1], "three", 5) == 5);
    pump_until_idle(self.s);
    CHECK(self.calls == 3 && write(fds[1], "four", 4) == 4);
    pump_until_idle(self.s);
    CHECK(self.calls == 3 && sluice_wait(self.s, -1) == SLUICE_ESTALLED);
    CHECK(sluice_watch(self.s, -1, SLUICE_READ, on_readable, &self) == SLUICE_EINVAL);
    CHECK(sluice_watch(self.s, fds[0], 8, on_readable, &self) == SLUICE_EINVAL);
    CHECK(sluice_watch(self.s, fds[0], SLUICE_READ, NULL, &self) == SLUICE_EINVAL);
    CHECK(sluice_watch(self.s, fds[0], 0, NULL, NULL) == SLUICE_OK);
    /* one that is left goes with the instance */
    CHECK(sluice_watch(self.s, fds[0], SLUICE_READ, on_readable, &self) == SLUICE_OK);
    sluice_delete(self.s);
    close(fds[0]);
    close(fds[1]);
}

static void delete_when_readable(void *user, int fd, unsigned events)
{
    pipe_end *self = user;
    (void)fd;
    (void)events;
    self->calls++;
    sluice_delete(self->s);
}

static void deleted_by_watcher(void)
{
    for (int i = 0; i < 2; i++) {
        int fds[2];
        CHECK(pipe(fds) == 0 && write(fds[1], "x", 1) == 1);
        pipe_end self = {.s = open_plain(), .fd = fds[0]};
        CHECK(sluice_watch(self.s, fds[0], SLUICE_READ, delete_when_readable, &self) == 0);
        CHECK((i ? sluice_wait(self.s, -1) : sluice_pump(self.s, 0)) == 0);
        CHECK(self.calls == 1);
        close(fds[0]);
        close(fds[1]);
    }
}

static const test_case cases[] = {
    {"completed", completed},
    {"at_once", at_once},
    {"failed", failed},
    {"cancelled", cancelled},
    {"many", many},
    {"refused", refused},
    {"deleted", deleted},
    {"outlived", outlived},
    {"from_a_thread", from_a_thread},
    {"watched", watched},
    {"deleted_by_watcher", deleted_by_watcher},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_case(cases, argc, argv);
}
