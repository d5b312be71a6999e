-- SPDX-License-Identifier: MIT
-- Names, by the HTTP client and a name server of our own that speaks over TCP, as the client is told to.
local helper = require "http_helper"
local http = require "sluice.http"
local meta = require "sluice.meta"
local task = require "sluice.task"

local A, AAAA = 1, 28
local NO_SUCH_NAME, SERVER_FAILED = 3, 2

local function read_exactly(connection, rest, size)
  while #rest < size do
    local piece = connection:read()
    if not piece then return nil end
    rest = rest .. piece
  end
  return rest:sub(1, size), rest:sub(size + 1)
end

-- One question: its id, its name, its type, and its bytes.
local function parse(query)
  local labels, at = {}, 13
  while query:byte(at) ~= 0 do
    local length = query:byte(at)
    labels[#labels + 1] = query:sub(at + 1, at + length)
    at = at + 1 + length
  end
  local question = query:sub(13, at + 4)
  local kind = (">I2"):unpack(query, at + 1)
  return { id = query:sub(1, 2), name = table.concat(labels, "."), type = kind, bytes = question }
end

local function address_bytes(address)
  return (address:gsub("(%d+)%.?", function(part) return string.char(tonumber(part)) end))
end

-- `found`: { code =, ttl =, addresses }
local function reply(question, found)
  local addresses = question.type == A and found or {}
  local answers = {}
  for index, address in ipairs(addresses) do
    answers[index] = (">I2I2I2I4s2"):pack(0xC00C, A, 1, found.ttl or 30, address_bytes(address))
  end
  local flags = 0x8180 | (found.code or 0)
  local head = question.id .. (">I2I2I2I2I2"):pack(flags, 1, #answers, 0, 0)
  return (">s2"):pack(head .. question.bytes .. table.concat(answers))
end

-- A name server; `answer(name)` gives what was found, nil for silence, and may wait.
local function serve_names(answer)
  local names = { asked = {} }
  local server = helper.serve(function(connection)
    local rest = ""
    while true do
      local size, query
      size, rest = read_exactly(connection, rest, 2)
      if not size then return end
      query, rest = read_exactly(connection, rest, (">I2"):unpack(size))
      if not query then return end
      local question = parse(query)
      assert(question.type == A or question.type == AAAA)
      names.asked[question.name] = (names.asked[question.name] or 0) + (question.type == A and 1 or 0)
      local found = answer(question.name)
      if found then connection:write(reply(question, found)) end
    end
  end)
  names.address = "127.0.0.1:" .. server.port
  return names
end

describe("a name", function()
  local client, before, web

  before_each(function()
    before = helper.descriptors()
    web = helper.serve_requests(function() return helper.answer("ok") end)
  end)

  after_each(function()
    if client then client:close() end
    client = nil
    helper.stop()
    helper.check_descriptors(before)
  end)

  local function ask(answer)
    local names = serve_names(answer)
    client = http.client { dns_servers = names.address, dns_over_tcp = true }
    return names
  end

  local function threads()
    local status <close> = assert(io.open("/proc/self/status"))
    return tonumber(status:read("a"):match("Threads:%s+(%d+)"))
  end

  local function url(name)
    return ("http://%s:%d/"):format(name, web.port)
  end

  it("is resolved without a thread, and its answer kept", function()
    local names = ask(function() return { "127.0.0.1" } end)
    local res = assert(client:request { url = url "a.test" })
    assert.are.equal("ok", res.body)
    assert.is_true(meta.get(res).timing.resolve > 0)
    assert(client:request { url = url "a.test" })
    assert(client:request { url = url "a.test" .. "path" })
    assert.are.equal(1, names.asked["a.test"])
    assert.are.equal(1, web.accepted)
    assert(client:request { url = url "b.test" })
    assert.are.equal(1, names.asked["b.test"])
    assert.are.equal(1, threads())
  end)

  it("is asked once for many requests at once", function()
    local names = ask(function()
      task.sleep(0.02)
      return { "127.0.0.1" }
    end)
    task.scope(function()
      for _ = 1, 1000 do task.spawn(function() assert(client:request { url = url "a.test" }) end) end
      task.sleep(0.01)
      assert.are.equal(1, threads())
    end)
    assert.are.equal(1, names.asked["a.test"])
  end)

  it("is asked again when its time is over", function()
    local names = ask(function() return { "127.0.0.1", ttl = 1 } end)
    assert(client:request { url = url "a.test" })
    task.sleep(1.1)
    assert(client:request { url = url "a.test" })
    assert.are.equal(2, names.asked["a.test"])
  end)

  it("keeps its old address while the servers fail", function()
    local found = { "127.0.0.1", ttl = 1 }
    local names = ask(function() return found end)
    assert(client:request { url = url "a.test" })
    task.sleep(1.1)
    found = { code = SERVER_FAILED }
    assert(client:request { url = url "a.test" })
    assert.is_true(names.asked["a.test"] >= 2)
  end)

  it("with several addresses reaches one that answers", function()
    ask(function() return { "127.0.0.2", "127.0.0.1" } end)
    -- the server listens on 127.0.0.1 alone; whatever the order, one refuses
    for _ = 1, 3 do assert(client:request { url = url "a.test" }) end
  end)

  local function failure(given)
    local res, err = helper.ticking(client.request, client, given)
    assert.is_nil(res)
    return err
  end

  it("that does not exist is a ConnectError of this phase", function()
    ask(function() return { code = NO_SUCH_NAME } end)
    local err = failure { url = url "a.test" }
    assert.are.equal("ConnectError", err.kind)
    assert.are.equal("resolve", err.phase)
    assert.is_false(err.maybe_executed)
    local expected = "GET http://a.test:%d/: name does not resolve: no such host (ConnectError)"
    assert.are.equal(expected:format(web.port), tostring(err))
  end)

  it("whose servers fail, or are not there, is one too", function()
    ask(function() return { code = SERVER_FAILED } end)
    local err = failure { url = url "a.test" }
    assert.are.equal("resolve", err.phase)
    assert.is_truthy(err.message:find("the name servers cannot be reached, or fail", 1, true), err.message)
    client:close()
    client = http.client { dns_servers = "127.0.0.1:1", dns_over_tcp = true }
    err = failure { url = url "a.test" }
    assert.are.equal("resolve", err.phase)
    assert.is_truthy(err.message:find("the name servers cannot be reached, or fail", 1, true), err.message)
  end)

  it("that takes long is bounded by the connect limit, and the loop goes on", function()
    ask(function() end)
    local started = task.now()
    local err = failure { url = url "a.test", timeout = { connect = 0.1 } }
    assert.are.equal("TimeoutError", err.kind)
    assert.are.equal("connect", err.limit)
    assert.are.equal("resolve", err.phase)
    assert.is_truthy(tostring(err):find("name not resolved within 0.1 s", 1, true))
    assert.is_true(task.now() - started < 1)
  end)

  it("that takes a while is served when it comes", function()
    ask(function()
      task.sleep(0.3)
      return { "127.0.0.1" }
    end)
    local res = assert(helper.ticking(client.request, client, { url = url "a.test" }))
    assert.is_true(meta.get(res).timing.resolve >= 0.3)
  end)

  it("goes on for the others when the first who asked is cancelled", function()
    local names = ask(function()
      task.sleep(0.03)
      return { "127.0.0.1" }
    end)
    local first = task.spawn(pcall, client.request, client, { url = url "a.test" })
    local second = task.spawn(client.request, client, { url = url "a.test" })
    task.sleep(0.01)
    first:cancel()
    assert.are.equal(200, second:join().status)
    assert.are.equal(1, names.asked["a.test"])
  end)

  it("fails when the client is closed under it", function()
    ask(function() end)
    local waiting = task.spawn(client.request, client, { url = url "a.test" })
    task.sleep(0.01)
    client:close()
    local res, err = waiting:join()
    assert.is_nil(res)
    assert.are.equal("ConnectError", err.kind)
  end)

  it("that is an address or this machine asks nobody", function()
    local names = ask(function() error "asked" end)
    for _, host in ipairs { "127.0.0.1", "localhost", "a.localhost", "127.1" } do
      assert.are.equal("ok", client:request({ url = url(host) }).body)
    end
    assert.are.same({}, names.asked)
  end)

  it("is found over UDP as well", function()
    local script = [[
use IO::Socket::INET; $| = 1;
my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Proto => "udp") or die;
print $s->sockport, "\n";
while (defined(my $peer = $s->recv(my $q, 512))) {
  my ($name) = substr($q, 12) =~ /^((?:[^\0].*?)?\0)/s;
  my $type = unpack("n", substr($q, 12 + length($name), 2));
  my $a = $type == 1 ? pack("nnnNna4", 0xC00C, 1, 1, 30, 4, "\x7f\0\0\1") : "";
  my $head = substr($q, 0, 2) . pack("nnnnn", 0x8180, 1, $type == 1, 0, 0);
  $s->send($head . $name . pack("nn", $type, 1) . $a, 0, $peer);
}]]
    local file, pid, port = os.tmpname(), os.tmpname(), nil
    local out = assert(io.open(file, "w"))
    out:write(script)
    out:close()
    os.execute(("perl %s >%s 2>/dev/null & echo $! >%s.pid"):format(file, pid, pid))
    helper.wait_until(function()
      for line in io.lines(pid) do port = line end
      return port
    end)
    client = http.client { dns_servers = "127.0.0.1:" .. port }
    local res, err = client:request { url = url "a.test" }
    os.execute(("kill $(cat %s.pid)"):format(pid))
    for _, path in ipairs { file, pid, pid .. ".pid" } do os.remove(path) end
    assert(res, err)
    assert.are.equal("ok", res.body)
  end)

  it("server that is none raises", function()
    local ok, err = pcall(http.client, { dns_servers = "nowhere" })
    assert.is_false(ok)
    assert.is_truthy(err:find("ADDRESS[:PORT]", 1, true), err)
  end)
end)
