/* SPDX-License-Identifier: MIT */
/* What an instance may do and take: capabilities, memory, an allocator that fails. */
#include "check.h"

#include <malloc.h>
#include <unistd.h>

static void expect(sluice *s, const char *chunk, const char *text)
{
    outcome end;
    run(s, chunk, &end);
    if (!strstr(end.text, text)) {
        fprintf(stderr, "%s\n gave: %s\n not: %s\n", chunk, end.text, text);
        exit(1);
    }
}

static void refused(void)
{
    static const char *const chunks[] = {
        "os.getenv 'HOME'",
        "io.open '/etc/passwd'",
        "io.open('/tmp/x', 'w')",
        "io.lines '/etc/passwd'",
        "io.input '/etc/passwd'",
        "io.read()",
        "io.output '/tmp/x'",
        "io.popen 'true'",
        "io.tmpfile()",
        "os.execute 'true'",
        "os.remove '/tmp/x'",
        "os.rename('/tmp/x', '/tmp/y')",
        "os.tmpname()",
        "os.setlocale 'C'",
        "os.exit()",
        "dofile '/etc/passwd'",
        "loadfile '/etc/passwd'",
        "package.loadlib('libm.so', '*')",
        "package.searchpath('passwd', '/etc/?')",
        "require 'sluice.http'.request { url = 'http://127.0.0.1:1/' }",
        "require 'sluice.core.socket'.connect('127.0.0.1', 1)",
        "local there, redis = pcall(require, 'sluice.redis')\n" /* it may have been left out */
        "if not there then error 'not allowed here: the host did not grant this capability' end\n"
        "redis.connect():ping()",
        "require 'sluice.core.process'.run({ 'true' }, 1, 1)",
        "require 'sluice.core.system'.file_stamp '/etc/passwd'",
        "require 'sluice.core.file'.open('/etc/passwd', 'read')",
        "require 'sluice.core.file'.open('/tmp/x', 'append')",
        "require 'sluice.core.file'.standard(0)",
        "require 'sluice.core.log'.open('/tmp/x')",
        "assert(require 'sluice'.workspace { profile = 'p', config_file = '/etc/passwd' })",
        "local w = require 'sluice'.workspace { host = 'h', token_file = '/etc/passwd' }\n"
        "assert(w:endpoint 'e':query {})",
        "local w = require 'sluice'.workspace { host = 'h', token_command = { 'true' } }\n"
        "assert(w:endpoint 'e':query {})",
        "require 'sluice.core.terminal'.write(1, 'x')",
        "assert(require 'sluice.web'.app():listen '127.0.0.1:0')",
    };
    setenv("SLUICE_PATH_THAT_IS_NOT", "x", 1);
    sluice *s = open_plain();
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++)
        expect(s, chunks[i], "not allowed here: the host did not grant this capability");
    expect(s, "return io.stdin == nil", "true");
    expect(s, "return debug.sethook == nil and debug.getupvalue == nil and #debug.traceback() > 0",
           "true");
    expect(s, "return pcall(require, 'passwd')", "false");
    expect(s, "return #package.searchers", "2");
    expect(s, "return (load(string.dump(function() end)))", "null");
    expect(s, "return load 'return 6 * 7'()", "42");
    expect(s, "return load(function() end, 'c', 't', {}) ~= nil", "true");
    expect(s, "return load('return 1', 'c', 'b') == nil", "true");
    expect(s, "return load('return x', 'c', 't', { x = 5 })()", "5");
    expect(s, "return require 'sluice.json'.encode { a = 1 }", "{\\\"a\\\":1}");
    sluice_delete(s);
}

static sluice *open_with(unsigned capabilities)
{
    sluice_options options = plain_options();
    options.capabilities = capabilities;
    sluice *s = NULL;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    return s;
}

static void granted(void)
{
    static const char no[] = "not allowed here";
    sluice *s = open_with(SLUICE_CAN_READ_FILES);
    expect(s, "return io.open('/etc/passwd'):read(1) ~= nil", "true");
    expect(s, "io.open('/tmp/x', 'a')", no);
    expect(s, "require 'sluice.core.file'.open('/tmp/x', 'append')", no);
    expect(s, "io.open('/etc/passwd', 'r+')", no);
    expect(s, "os.getenv 'HOME'", no);
    expect(s, "return #package.searchers", "3"); /* Lua files, but no machine code */
    sluice_delete(s);
    s = open_with(SLUICE_CAN_WRITE_FILES);
    expect(s, "io.open '/etc/passwd'", no);
    expect(s, "return io.open('/dev/null', 'w') ~= nil", "true");
    sluice_delete(s);
    s = open_with(SLUICE_CAN_READ_ENVIRONMENT);
    setenv("SPEC_EMBEDDING", "seen", 1);
    expect(s, "return os.getenv 'SPEC_EMBEDDING'", "seen");
    sluice_delete(s);
    static const char run_true[] =
        "return require 'sluice.core.process'.run({ 'true' }, 1, 1).status";
    s = open_with(SLUICE_CAN_SPAWN_PROCESSES);
    expect(s, run_true, no); /* the child would have the environment */
    sluice_delete(s);
    s = open_with(SLUICE_CAN_SPAWN_PROCESSES | SLUICE_CAN_READ_ENVIRONMENT);
    expect(s, run_true, "0");
    sluice_delete(s);
    s = open_with(SLUICE_CAN_EVERYTHING);
    expect(s, "return #package.searchers", "5");
    outcome end, other;
    spawn(s, "require 'sluice.task'.sleep(3600)", &other);
    run(s, "os.exit(7)", &end);
    CHECK(end.status == SLUICE_EEXIT && strcmp(end.text, "7") == 0);
    run_to_end(s, &other);
    CHECK(other.status == SLUICE_EEXIT);
    sluice_delete(s);
}

static void memory_limit(void)
{
    sluice_options options = plain_options();
    options.memory_limit = 8 << 20;
    sluice *s = NULL;
    CHECK(sluice_new(&s, &options) == SLUICE_OK);
    outcome end;
    run(s, "return #string.rep('x', 100 << 20)", &end);
    CHECK(end.status == SLUICE_ESCRIPT && strstr(end.text, "not enough memory"));
    run(s, "local t = {} for i = 1, 1e9 do t[i] = { i } end", &end);
    CHECK(end.status == SLUICE_ESCRIPT && strstr(end.text, "not enough memory"));
    run(s,
        "local task = require 'sluice.task' local tasks = {}\n"
        "for i = 1, 1e9 do tasks[i] = task.spawn(task.sleep, 3600) end",
        &end);
    CHECK(end.status == SLUICE_ESCRIPT && strstr(end.text, "not enough memory"));
    run(s, "collectgarbage() return #string.rep('x', 1 << 20)", &end);
    CHECK(end.status == SLUICE_OK && strcmp(end.text, "1048576") == 0);
    sluice_delete(s);
    options.memory_limit = 1000;
    CHECK(sluice_new(&s, &options) == SLUICE_ENOMEM && s == NULL);
}

/** Counts what lives; fails at one call, or from it on. */
typedef struct ledger {
    long calls, fail_at, live;
    int for_good;
    /** What runs meanwhile, and what comes of it. */
    const char *chunk, *result;
} ledger;

/** A pipe that nobody writes to. */
static int never_ready[2];

static void *ledger_allocate(void *user, void *block, size_t size)
{
    ledger *self = user;
    if (size == 0) {
        self->live -= block != NULL;
        free(block);
        return NULL;
    }
    /* Lua counts on it that a block can always become smaller */
    if (!block || size > malloc_usable_size(block)) {
        self->calls++;
        if (self->calls == self->fail_at || (self->for_good && self->calls > self->fail_at))
            return NULL;
    }
    void *fresh = realloc(block, size);
    self->live += !block && fresh;
    return fresh;
}

static const char allocating_chunk[] =
    "local task = require 'sluice.task'\n"
    "local closed = 0\n"
    "local function closer() return setmetatable({}, { __close = function()\n"
    "  task.shield(function() task.sleep(0) end) closed = closed + 1 end }) end\n"
    "local host = require 'sluice.host'\n"
    "local answer = host.later({ n = 1 }, 'x')\n"
    "assert(answer == true or answer[1] == 'good', answer)\n"
    "local none, failure = host.fails 'y'\n"
    "assert(none == nil and (failure.kind == 'NotFound' or failure.kind == 'HostError'))\n"
    "assert(task.timeout(0.001, host.never) == nil)\n"
    "local queue = task.channel(1)\n"
    "local group <close> = task.group()\n"
    "group:spawn(function() local c <close> = closer() task.sleep(3600) end)\n"
    "local results = task.scope(function(scope)\n"
    "  local a = scope:spawn(function() local c <close> = closer()\n"
    "    for i = 1, 3 do queue:send(i) end queue:close() return 1, 2, 3 end)\n"
    "  local sum = 0\n"
    "  for value in queue:values() do sum = sum + value end\n"
    "  local one, two, three = a:join()\n"
    "  local late, err = task.timeout(0.001, function() local c <close> = closer()\n"
    "    task.spawn(task.sleep, 3600) task.sleep(3600) end)\n"
    "  assert(late == nil and err.kind == 'TimeoutError')\n"
    "  local each = coroutine.wrap(function() for i = 1, 2 do task.sleep(0) coroutine.yield(i) end "
    "end)\n"
    "  for i in each do sum = sum + i end\n"
    "  local ok, raised = pcall(task.scope, function()\n"
    "    task.spawn(error, { code = 5 }) task.sleep(3600) end)\n"
    "  assert(not ok and raised.code == 5)\n"
    "  local gone, why = task.scope(function(inner) task.spawn(function() inner:cancel 'enough' "
    "end)\n"
    "    task.sleep(3600) end)\n"
    "  assert(gone == nil and why.reason == 'enough')\n"
    "  local won = task.race(function() return 'fast' end, function() task.sleep(3600) end)\n"
    "  return sum + one + two + three + #won\n"
    "end)\n"
    "return { results = results }";

/** A chunk that uses the modules which open sockets. */
static const char serving_chunk[] =
    "local task, http, web = require 'sluice.task', require 'sluice.http', require 'sluice.web'\n"
    "local app <const> = web.app()\n"
    "app:post('/', function(request)\n"
    "  local given = assert(request:json())\n"
    "  return { status = 200, json = { n = given.n + 1 } } end)\n"
    "app:get('/stream', function() return { stream = coroutine.wrap(function()\n"
    "  for i = 1, 3 do coroutine.yield(('part %d'):format(i)) end end) } end)\n"
    "local server = assert(app:listen '127.0.0.1:0')\n"
    "local client = http.client { max_connections = 2 }\n"
    "local url = 'http://' .. server.address\n"
    "local result <const> = task.scope(function()\n"
    "  local res = assert(client:request { url = url .. '/', json = { n = 6 }, timeout = 1 })\n"
    "  local count = 0\n"
    "  local streamed <close> = assert(client:request { url = url .. '/stream', stream = true,\n"
    "    timeout = 1 })\n"
    "  for chunk in streamed:chunks() do count = count + #chunk end\n"
    "  return assert(res:json()).n + (count >= 18 and 66 or 0) end)\n"
    "client:close() server:stop(0)\n"
    "return result";

/** The calls of host functions that are to be answered between two pumps. */
typedef struct asked {
    sluice *s;
    sluice_call later, fails;
} asked;

static void on_asked_later(void *user, sluice_call call, const char *arguments, size_t len)
{
    (void)arguments;
    (void)len;
    ((asked *)user)->later = call;
}

static void on_asked_to_fail(void *user, sluice_call call, const char *arguments, size_t len)
{
    (void)arguments;
    (void)len;
    ((asked *)user)->fails = call;
}

static void on_asked_nothing(void *user, sluice_call call, const char *arguments, size_t len)
{
    (void)user;
    (void)call;
    (void)arguments;
    (void)len;
}

static void on_nothing_cancelled(void *user, sluice_call call)
{
    (void)user;
    CHECK(call != 0);
}

/** Without memory for the answer there is one that needs none. */
static void answer_calls(asked *self)
{
    if (self->later && sluice_complete(self->s, self->later, "[\"good\"]", 8) == SLUICE_ENOMEM &&
        sluice_complete(self->s, self->later, NULL, 0) != SLUICE_OK)
        exit(1);
    self->later = 0;
    if (self->fails &&
        sluice_fail(self->s, self->fails, "NotFound", "no such thing") == SLUICE_ENOMEM)
        CHECK(sluice_fail(self->s, self->fails, NULL, NULL) == SLUICE_OK);
    self->fails = 0;
}

static void on_never_ready(void *user, int fd, unsigned events)
{
    (void)user;
    (void)fd;
    (void)events;
    CHECK(0);
}

static int begin_life(sluice *s, asked *asked, const char *chunk, outcome *end)
{
    int status = sluice_register(s, "later", on_asked_later, NULL, asked);
    if (status == SLUICE_OK)
        status = sluice_register(s, "fails", on_asked_to_fail, NULL, asked);
    if (status == SLUICE_OK)
        status = sluice_register(s, "never", on_asked_nothing, on_nothing_cancelled, NULL);
    if (status == SLUICE_OK)
        status = sluice_watch(s, never_ready[0], SLUICE_READ, on_never_ready, NULL);
    return status < 0 ? status : spawn(s, chunk, end);
}

/** 1: it went as if nothing had failed, 0: something reported the failure. */
static int attempt(ledger *self)
{
    sluice_options options = {.size = sizeof options,
                              .allocator = ledger_allocate,
                              .allocator_user = self,
                              .capabilities = SLUICE_CAN_CONNECT | SLUICE_CAN_LISTEN};
    sluice *s = NULL;
    int status = sluice_new(&s, &options);
    if (status < 0) {
        CHECK(status == SLUICE_ENOMEM && s == NULL);
        return 0;
    }
    outcome end;
    asked asked = {s, 0, 0};
    status = begin_life(s, &asked, self->chunk, &end);
    if (status < 0) {
        CHECK(status == SLUICE_ENOMEM);
        sluice_delete(s);
        return 0;
    }
    double start = seconds_now();
    while (!end.calls) {
        if (sluice_pump(s, 2000) == 0 && !end.calls && !asked.later && !asked.fails &&
            sluice_wait(s, 1000000) < 0)
            break;
        answer_calls(&asked);
        if (seconds_now() - start > 20) {
            fprintf(stderr, "no end after allocation %ld failed\n", self->fail_at);
            exit(1);
        }
    }
    sluice_delete(s);
    CHECK(end.calls == 1);
    int good = end.status == SLUICE_OK && strcmp(end.text, self->result) == 0;
    if (!good && self->calls < self->fail_at)
        fprintf(stderr, "ended with %d: %s\n", end.status, end.text);
    return good;
}

static void fail_each(int for_good, long each, const char *chunk, const char *result)
{
    long reported = 0, survived = 0;
    CHECK(pipe(never_ready) == 0);
    const char *given = getenv("FAIL_STEP"); /* each Nth allocation only */
    long step = each * (given ? atol(given) : 1);
    for (long n = 1;; n += step) {
        ledger self = {.fail_at = n, .for_good = for_good, .chunk = chunk, .result = result};
        int good = attempt(&self);
        if (self.live != 0)
            fprintf(stderr, "allocation %ld: %ld blocks are left\n", n, self.live);
        CHECK(self.live == 0);
        if (self.calls < n) {
            CHECK(good);
            break;
        }
        if (good)
            survived++;
        else
            reported++;
    }
    fprintf(stderr, "%ld failures reported, %ld survived\n", reported, survived);
    CHECK(reported > 20 / step);
}

static void failing_once(void)
{
    fail_each(0, 1, allocating_chunk, "{\"results\":19}");
}

static void failing_for_good(void)
{
    fail_each(1, 1, allocating_chunk, "{\"results\":19}");
}

static void failing_sockets(void)
{
    fail_each(0, 5, serving_chunk, "73");
    fail_each(1, 5, serving_chunk, "73");
}

static const test_case cases[] = {
    {"refused", refused},
    {"granted", granted},
    {"memory_limit", memory_limit},
    {"failing_once", failing_once},
    {"failing_for_good", failing_for_good},
    {"failing_sockets", failing_sockets},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_case(cases, argc, argv);
}
