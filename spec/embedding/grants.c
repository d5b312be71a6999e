/* SPDX-License-Identifier: MIT */
/* What an instance may reach of what it is granted: hosts, methods, requests, bytes, variables. */
#include "check.h"

/** A server in an instance of its own, and the instance that is held to limits. */
typedef struct pair {
    sluice *server, *client;
    char address[64];
} pair;

static const char server_chunk[] =
    "local web, task = require 'sluice.web', require 'sluice.task'\n"
    "local app = web.app()\n"
    "app:any('/*', function(request)\n"
    "  if request.path == '/away' then\n"
    "    return { status = 302, headers = { location = 'http://localhost:1/' } } end\n"
    "  local size = tonumber(request.path:match '^/(%d+)$')\n"
    "  return { status = 200, body = size and ('x'):rep(size) or request.method } end)\n"
    "server = assert(app:listen '127.0.0.1:0')\n"
    "return server.address";

static sluice *open_with(const sluice_options *options)
{
    sluice *s = NULL;
    CHECK(sluice_new(&s, options) == SLUICE_OK);
    return s;
}

static void open_pair(pair *self, sluice_options options)
{
    sluice_options serving = plain_options();
    outcome end;
    serving.capabilities = SLUICE_CAN_LISTEN;
    self->server = open_with(&serving);
    run(self->server, server_chunk, &end);
    CHECK(end.status == SLUICE_OK);
    snprintf(self->address, sizeof self->address, "%.*s", (int)strlen(end.text) - 2, end.text + 1);
    self->client = open_with(&options);
}

static void close_pair(pair *self)
{
    sluice_delete(self->client);
    sluice_delete(self->server);
}

/** Runs a chunk of the client's with `ADDRESS` and `get` in it. */
static void expect(pair *self, const char *chunk, const char *text)
{
    char full[2048];
    outcome end;
    snprintf(
        full, sizeof full,
        "local http, ADDRESS = require 'sluice.http', '%s'\n"
        "local function get(path, given) given = given or {} given.url = 'http://' .. ADDRESS\n"
        "  .. path given.timeout = 5\n"
        "  local res, err = http.request(given)\n"
        "  return res and res.body or err.kind .. ': ' .. tostring(err) end\n%s",
        self->address, chunk);
    CHECK(spawn(self->client, full, &end) > 0);
    while (!end.calls) {
        sluice_pump(self->server, 1000);
        sluice_pump(self->client, 1000);
    }
    if (!strstr(end.text, text)) {
        fprintf(stderr, "%s\n gave %d: %s\n not: %s\n", chunk, end.status, end.text, text);
        exit(1);
    }
}

static const char no_host[] = "not allowed here: it is not among the hosts";

static void hosts(void)
{
    static const char *const allowed[] = {"127.0.0.1", "*.example.com:443", "[::1]:80",
                                          "unix:/tmp/granted", NULL};
    static const char *const refused[] = {
        "return get('', { url = nil }) and http.request { url = 'http://localhost/' }",
        "return http.request { url = 'http://127.0.0.2/' }",
        "return http.request { url = 'http://2130706434/' }",
        "return http.request { url = 'http://example.com:443/' }",
        "return http.request { url = 'http://a.example.com/' }",
        "return http.request { url = 'http://a.example.com.evil.org:443/' }",
        "return http.request { url = 'http://aexample.com:443/' }",
        "return http.request { url = 'http://127.0.0.1@evil.org/' }",
        "return http.request { url = 'http://[::1]:81/' }",
        "return http.request { url = 'http://[::2]/' }",
        "return http.client { proxy = 'http://localhost:1' }",
        "return http.client { unix = '/tmp/other' }",
        "return http.client { dns_servers = '127.0.0.1' }",
        "return get('/away', { redirects = 3 })",
        "return require 'sluice.core.socket'.connect('localhost', 80)",
        "return require 'sluice.core.socket'.connect 'unix:/tmp/other'",
        "package.loaded['sluice.core.redis'] = nil\n"
        "local ok, redis = pcall(require, 'sluice.core.redis')\n"
        "if not ok and redis:find 'left out' then return http.client { unix = '/tmp/other' } end\n"
        "redis.server { host = 'localhost', port = 6379, connect_time = 1, max_reply = 1 }",
    };
    pair self;
    sluice_options options = plain_options();
    options.capabilities = SLUICE_CAN_CONNECT;
    options.allowed_hosts = allowed;
    open_pair(&self, options);
    expect(&self, "return get '/'", "GET");
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        expect(&self, refused[i], no_host);
    expect(&self, "return http.request { url = 'http://[::1]:80/', timeout = 1 } == nil", "true");
    expect(&self, "return http.client { unix = '/tmp/granted' } ~= nil", "true");
    expect(&self,
           "local host, port = ADDRESS:match '(.*):(.*)'\n"
           "return require 'sluice.core.socket'.connect(host, tonumber(port)) ~= nil",
           "true");
    close_pair(&self);
}

/** A database: by opening it, and by the SQL of one that may only be read. */
static void expect_no_database(const char *chunk, unsigned capabilities)
{
    pair self;
    char full[512];
    sluice_options options = plain_options();
    options.capabilities = capabilities;
    open_pair(&self, options);
    snprintf(full, sizeof full,
             "local there, sqlite = pcall(require, 'sluice.sqlite')\n"
             "if not there then return 'not allowed here' end\n" /* it was left out */
             "local ok, value, err = pcall(function() %s end)\n"
             "local text = tostring(ok and err or value)\n"
             "return text:find 'SQLITE_AUTH' and 'not allowed here' or text",
             chunk);
    expect(&self, full, "not allowed here");
    close_pair(&self);
}

static void databases(void)
{
    static const char sql[] =
        "return assert(sqlite.open(':memory:', { read_only = true })):exec(%s)";
    static const char *const statements[] = {
        "\"ATTACH '/tmp/sluice-granted.db' AS x\"",
        "'ATTACH ? AS x', '/etc/passwd'",
        "\"VACUUM INTO '/tmp/sluice-granted.db'\"",
    };
    expect_no_database("sqlite.open '/tmp/sluice-granted.db'", 0);
    expect_no_database("sqlite.open '/tmp/sluice-granted.db'", SLUICE_CAN_READ_FILES);
    expect_no_database("sqlite.open('/etc/passwd', { read_only = true })", 0);
    expect_no_database("sqlite.open ':memory:'", 0);
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
        char chunk[256];
        snprintf(chunk, sizeof chunk, sql, statements[i]);
        expect_no_database(chunk, SLUICE_CAN_READ_FILES);
    }
}

static void ports(void)
{
    pair self;
    sluice_options options = plain_options();
    options.capabilities = SLUICE_CAN_CONNECT;
    static const char *const allowed[] = {"127.0.0.1:1", "localhost:2", NULL};
    options.allowed_hosts = allowed;
    open_pair(&self, options);
    expect(&self, "return get '/'", no_host);
    expect(&self, "return get('/', { url = 0 })", no_host);
    expect(&self, "return http.request { url = 'http://LOCALHOST.:2/', timeout = 1 } == nil",
           "true");
    close_pair(&self);
}

static void methods(void)
{
    static const char *const allowed[] = {"GET", "POST", NULL};
    pair self;
    sluice_options options = plain_options();
    options.capabilities = SLUICE_CAN_CONNECT;
    options.allowed_methods = allowed;
    open_pair(&self, options);
    expect(&self, "return get '/'", "GET");
    expect(&self, "return get('/', { method = 'POST', body = 'x' })", "POST");
    expect(&self, "return get('/', { method = 'DELETE' })", "the method is not among those");
    close_pair(&self);
}

static void quotas(void)
{
    pair self;
    sluice_options options = plain_options();
    options.capabilities = SLUICE_CAN_CONNECT;
    options.request_limit = 3;
    open_pair(&self, options);
    for (int i = 0; i < 3; i++)
        expect(&self, "return get '/'", "GET");
    for (int i = 0; i < 2; i++)
        expect(&self, "return get '/'", "LimitExceeded: ");
    close_pair(&self);
    options.request_limit = 0;
    options.byte_limit = 10000;
    open_pair(&self, options);
    expect(&self, "return #get '/5000'", "5000");
    expect(&self, "return get '/5000'", "LimitExceeded: ");
    expect(&self, "return get('/', { method = 'POST', body = 'x' })", "LimitExceeded: ");
    close_pair(&self);
    open_pair(&self, options);
    expect(&self, "return get('/', { method = 'POST', body = ('x'):rep(20000) })",
           "LimitExceeded: ");
    close_pair(&self);
    open_pair(&self, options);
    expect(&self,
           "local host, port = ADDRESS:match '(.*):(.*)'\n"
           "local s = require 'sluice.core.socket'.connect(host, tonumber(port))\n"
           "local _, why = s:write(('x'):rep(20000)) return why",
           "a limit that the host has set is used up");
    close_pair(&self);
}

static void environment(void)
{
    static const char *const allowed[] = {"SPEC_SEEN", NULL};
    pair self;
    sluice_options options = plain_options();
    setenv("SPEC_SEEN", "seen", 1);
    setenv("SPEC_HIDDEN", "hidden", 1);
    options.capabilities = SLUICE_CAN_READ_ENVIRONMENT;
    options.allowed_environment = allowed;
    open_pair(&self, options);
    expect(&self, "return os.getenv 'SPEC_SEEN'", "seen");
    expect(&self, "return os.getenv 'SPEC_HIDDEN' == nil", "true");
    expect(&self, "return require 'sluice.core.system'.getenv 'SPEC_SEEN'", "seen");
    expect(&self, "return require 'sluice.core.system'.getenv 'SPEC_HIDDEN' == nil", "true");
    close_pair(&self);
}

static const test_case cases[] = {
    {"hosts", hosts},     {"ports", ports},   {"databases", databases},
    {"methods", methods}, {"quotas", quotas}, {"environment", environment},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_case(cases, argc, argv);
}
