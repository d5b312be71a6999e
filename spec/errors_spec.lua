-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local json = require "sluice.json"
local meta = require "sluice.meta"
local response = require "sluice.response"
local secret = require "sluice.secret"

local function answer(status, body, headers)
  if type(body) == "table" then body = json.encode(body) end
  return response.new { status = status, headers = headers, body = body }
end

local function read(status, body, headers)
  return errors.from_response(answer(status, body, headers), { operation = "get endpoint", object = "e" })
end

describe("an err", function()
  it("says operation, object, cause and kind", function()
    local err = errors.new("ResourceDoesNotExist", {
      operation = "get endpoint", object = "e", message = "there is none", status = 404,
      code = "RESOURCE_DOES_NOT_EXIST", request_id = "r-1",
      cause = errors.new("ConnectError", { message = "refused" }), attempts = { {}, {} },
    })
    assert.equal("get endpoint e: there is none (ResourceDoesNotExist, HTTP 404, RESOURCE_DOES_NOT_EXIST, "
      .. "request r-1, after 2 attempts); because: refused (ConnectError)", tostring(err))
    assert.equal("x: refused (ConnectError)", "x: " .. err.cause)
    assert.is_true(errors.is(err))
    assert.is_false(errors.is { kind = "NotFound" })
  end)

  it("follows the hierarchy", function()
    local err = errors.new("ResourceDoesNotExist")
    for _, kind in ipairs { "ResourceDoesNotExist", "NotFound", "APIError", "DatabricksError" } do
      assert.is_true(err:is(kind), kind)
    end
    assert.is_false(err:is "BadRequest")
    for kind, parent in pairs {
      DeadlineExceeded = "ServiceError", TemporarilyUnavailable = "ServiceError",
      NotImplemented = "ServiceError", DataLoss = "InternalError", ServiceError = "APIError",
      OperationTimeout = "TimeoutError", JsonError = "ProtocolError", TruncatedStream = "ProtocolError",
      RequestLimitExceeded = "TooManyRequests",
      PrivateLinkValidationError = "PermissionDenied", Aborted = "ResourceConflict",
    } do
      assert.is_true(errors.new(kind):is(parent), kind)
    end
    assert.is_false(errors.new("ResourceAlreadyExists"):is "AlreadyExists")
    assert.is_false(errors.new("OperationFailed"):is "APIError")
  end)

  it("refuses to be asked for a kind that does not exist", function()
    assert.has_error(function() errors.new("NotFound"):is "NotFuond" end)
    local _, message = pcall(function() errors.new("NotFound"):is "NotFuond" end)
    local expected = 'errors_spec.lua:%d+: err:is: unknown kind "NotFuond" %(did you mean "NotFound"%?%)'
    assert.matches(expected, message)
  end)

  it("takes kinds of others", function()
    errors.define("SpecError", "TimeoutError")
    assert.is_true(errors.new("SpecError"):is "TimeoutError")
    assert.has_error(function() errors.define("SpecError") end)
    assert.has_error(function() errors.define("SpecOther", "NoParent") end)
    assert.equal("SpecLoose", errors.new("SpecLoose").kind)
  end)

  it("knows what is worth another try, and what may have been done already", function()
    for kind, expected in pairs {
      ConnectError = true, TooManyRequests = true, RequestLimitExceeded = true, InternalError = true,
      TemporarilyUnavailable = true, NotImplemented = false, TLSError = false, BadRequest = false,
      JsonError = false, TimeoutError = true, OperationTimeout = false, OperationFailed = false,
      TaskCancelled = false, TruncatedStream = true, QueueFull = true, ConfigError = false,
      CircuitOpen = true,
    } do
      assert.equal(expected, errors.new(kind).retryable, kind)
    end
    assert.is_nil(errors.new("TimeoutError", { limit = "connect" }).maybe_executed)
    assert.is_nil(errors.new("TimeoutError", { limit = "queue" }).maybe_executed)
    assert.is_true(errors.new("TimeoutError", { limit = "first_byte" }).maybe_executed)
    assert.is_true(errors.new("TruncatedStream").maybe_executed)
    assert.is_nil(errors.new("ConnectError").maybe_executed)
    assert.is_false(errors.new("ConnectError", { retryable = false }).retryable)
  end)

  it("finds what is said of the nearest kind", function()
    local map = { APIError = 1, NotFound = 2, DataLoss = false }
    for kind, expected in pairs { ResourceDoesNotExist = 2, InternalError = 1, DataLoss = false } do
      assert.equal(expected, errors.nearest(kind, map))
    end
    assert.is_nil(errors.nearest("TLSError", map))
    assert.equal("APIError", errors.kind_named "DatabricksError")
    assert.equal("NotFound", errors.kind_named "NotFound")
  end)

  it("becomes JSON without its response", function()
    local err = read(500, { message = "broken" })
    local plain = json.decode(json.encode { error = err }).error
    assert.equal("InternalError", plain.kind)
    assert.equal("broken", plain.message)
    assert.is_nil(plain.response)
    assert.same(errors.to_table(err), plain)
  end)
end)

describe("errors.from_response", function()
  it("maps statuses", function()
    for status, kind in pairs {
      [400] = "BadRequest", [401] = "Unauthenticated", [403] = "PermissionDenied", [404] = "NotFound",
      [409] = "ResourceConflict", [429] = "TooManyRequests", [499] = "Cancelled", [500] = "InternalError",
      [501] = "NotImplemented", [503] = "TemporarilyUnavailable", [504] = "DeadlineExceeded",
      [402] = "APIError", [422] = "APIError", [302] = "APIError", [502] = "ServiceError",
      [529] = "ServiceError",
    } do
      local err = read(status, "")
      assert.equal(kind, err.kind)
      assert.equal(status, err.status)
      assert.equal(errors.kind_of(status), kind)
    end
  end)

  it("lets the error_code decide whatever the status is", function()
    for code, kind in pairs {
      INVALID_STATE = "InvalidState", INVALID_PARAMETER_VALUE = "InvalidParameterValue", ABORTED = "Aborted",
      RESOURCE_DOES_NOT_EXIST = "ResourceDoesNotExist", ALREADY_EXISTS = "AlreadyExists", UNKNOWN = "Unknown",
      RESOURCE_ALREADY_EXISTS = "ResourceAlreadyExists", RESOURCE_EXHAUSTED = "ResourceExhausted",
      REQUEST_LIMIT_EXCEEDED = "RequestLimitExceeded", DATA_LOSS = "DataLoss",
    } do
      local err = read(400, { error_code = code, message = "m" })
      assert.equal(kind, err.kind)
      assert.equal(code, err.code)
      assert.equal("m", err.message)
    end
    assert.equal("ResourceConflict", read(409, { error_code = "RESOURCE_CONFLICT", message = "m" }).kind)
  end)

  it("tells which tries are worth repeating", function()
    for status, expected in pairs {
      [400] = false, [401] = false, [404] = false, [408] = true, [409] = false, [422] = false, [429] = true,
      [500] = true, [501] = false, [502] = true, [503] = true, [504] = true, [505] = false, [529] = true,
    } do
      assert.equal(expected, read(status, "").retryable, status)
    end
    assert.is_false(read(503, "", { ["X-Should-Retry"] = "false" }).retryable)
    assert.is_true(read(400, "", { ["X-Should-Retry"] = "true" }).retryable)
    assert.is_true(read(400, { error_code = "REQUEST_LIMIT_EXCEEDED" }).retryable)
    assert.is_false(read(503, "", { ["x-should-retry"] = " False " }).should_retry)
    assert.is_nil(read(503, "", { ["x-should-retry"] = "perhaps" }).should_retry)
    local spent = { error = { code = "insufficient_quota" } }
    assert.is_false(read(429, spent).retryable)
    assert.is_true(read(429, spent, { ["x-should-retry"] = "true" }).retryable)
  end)

  it("reads every shape of body", function()
    for _, case in ipairs {
      { 404, '{"error_code":"X_Y","message":"m"}', "m", "X_Y" },
      { 400, '{"error_code":17,"message":"m"}', "m", "17" },
      { 400, '{"error_code":"X"}', 'Bad Request: {"error_code":"X"}', "X" },
      { 400, '{"error":"e","message":"m"}', "e", nil },
      { 400, '{"message":null}', 'Bad Request: {"message":null}', nil },
      { 400, '{"error":"from x","external_model_message":{"error_code":"E","message":"i"}}',
        "i", "E" },
      { 400, '{"error":"from x","external_model_message":{"error":{"message":"i","code":"c"}}}',
        "i", "c" },
      { 400, '{"error":{"message":"m","type":"t","code":"c","param":null}}', "m", "c" },
      { 400, '{"error":{"message":"m","type":"t","code":null}}', "m", "t" },
      { 404, '{"schemas":["s"],"detail":"d","status":"404","scimType":"t"}', "t d", "SCIM_404" },
      { 404, '{"schemas":["s"],"detail":"null","status":"404"}', "SCIM API Internal Error", "SCIM_404" },
      { 422, '{"detail":[{"loc":["body"],"msg":"field required","type":"missing"}]}', "field required", nil },
      { 400, '{"object":"error","message":"m","type":"T","code":400}', "m", nil },
      { 403, "PERMISSION_DENIED: not you", "not you", "PERMISSION_DENIED" },
      { 502, "<html><title>502 Bad &amp; Gateway</title></html>", "502 Bad & Gateway", "BAD_GATEWAY" },
      { 500, "<html><pre class='x'>inner\n<b>text</b></pre></html>", "inner text", "INTERNAL_SERVER_ERROR" },
      { 503, "<html></html>", "Service Unavailable (an HTML page)", "SERVICE_UNAVAILABLE" },
      { 404, "", "Not Found", nil },
      { 400, "json: unknown field", "Bad Request: json: unknown field", nil },
      { 400, '{"cut', 'Bad Request: {"cut', nil },
      { 400, "[1,2]", "Bad Request: [1,2]", nil },
      { 400, "\255\254", "Bad Request: \255\254", nil },
      { 400, '{"message":"a\255b"}', "a\u{FFFD}b", nil },
      { 400, '{"error_code":404.0,"message":"m"}', "m", "404" },
      { 400, '{"error":{"message":"m","code":400,"status":"INVALID_ARGUMENT"}}', "m", "INVALID_ARGUMENT" },
      { 400, '{"error":{"message":"m","code":429}}', "m", "429" },
      { 400, '{"error":"","message":"m"}', "m", nil },
    } do
      local err = read(case[1], case[2])
      assert.equal(case[3], err.message, case[2])
      assert.equal(case[4], err.code, case[2])
    end
  end)

  it("opens the envelope of an outside provider, and keeps it", function()
    local err = read(400, {
      error = "Received error from openai",
      external_model_message = { error_code = "REQUEST_LIMIT_EXCEEDED", message = "slower" },
    })
    assert.same({ "slower", "REQUEST_LIMIT_EXCEEDED", "RequestLimitExceeded" },
      { err.message, err.code, err.kind })
    assert.same({ message = "Received error from openai" }, err.envelope)
    local expected = "slower %(RequestLimitExceeded, HTTP 400, REQUEST_LIMIT_EXCEEDED, in: Received error"
    assert.matches(expected, tostring(err))

    err = read(400, {
      error_code = "INVALID_PARAMETER_VALUE", message = json.encode {
        external_model_provider = "p",
        external_model_error = {
          error = { message = "too long", type = "invalid_request_error", param = "n" },
        },
      },
    })
    assert.same({ "too long", "invalid_request_error", "InvalidParameterValue", "n" },
      { err.message, err.code, err.kind, err.param })
    assert.equal("INVALID_PARAMETER_VALUE", err.envelope.code)

    err = read(400, { error = "outer", external_model_message = json.encode { message = "in text" } })
    assert.equal("in text", err.message)
    for _, nothing in ipairs { {}, { 1 }, json.null, 7 } do
      err = read(400, { error = "outer", external_model_message = nothing })
      assert.same({ "outer", nil }, { err.message, err.envelope })
    end
    local kept = { { ["@type"] = "x.RequestInfo", request_id = "r-8" } }
    err = read(400, { error_code = "O", details = kept, external_model_message = "inner" })
    assert.equal("r-8", err.request_id)
    local deep = { message = "deepest" }
    for _ = 1, 500 do deep = { error = "o", external_model_message = deep } end
    assert.equal("o", read(400, deep).envelope.message)
  end)

  it("takes apart OpenAI's errors", function()
    local inner = { message = "m", type = "requests", code = "insufficient_quota", param = "messages" }
    local err = read(429, { error = inner })
    assert.same({ "TooManyRequests", "insufficient_quota", "requests", "messages", false },
      { err.kind, err.code, err.type, err.param, err.retryable })
  end)

  it("reads the details of google.rpc", function()
    local prefix = "type.googleapis.com/google.rpc."
    local err = read(429, { error_code = "X", message = "m", details = {
      "no detail",
      { ["@type"] = prefix .. "RequestInfo", request_id = "r-7", serving_data = "s" },
      { ["@type"] = prefix .. "ErrorInfo", reason = "R", domain = "d", metadata = { a = "b" } },
      { ["@type"] = prefix .. "RetryInfo", retry_delay = { seconds = 3, nanos = 500000000 } },
    } })
    assert.same({ "r-7", "R", "b", 3.5 }, { err.request_id, err:detail "ErrorInfo".reason,
      err:detail "ErrorInfo".metadata.a, err.retry_after })
    assert.is_nil(err:detail "Help")
    assert.is_nil(read(429, { error_code = "X", message = "m", details = "none" }):detail "Help")
    assert.equal("h-1", read(429, { details = err.details }, { ["x-request-id"] = "h-1" }).request_id)
  end)

  it("knows a login page", function()
    local url = "https://h/login.html?next=x&error=private-link-validation-error:1"
    local err = read(302, "", { location = url })
    assert.same({ "PrivateLinkValidationError", "PRIVATE_LINK_VALIDATION_ERROR", 403, false },
      { err.kind, err.code, err.status, err.retryable })
    err = read(303, "<html></html>", { location = "/login.html?next_url=%2Fapi" })
    assert.same({ "Unauthenticated", 401 }, { err.kind, err.status })
    assert.equal("APIError", read(303, "", { location = "/logins" }).kind)
  end)

  it("tells of a refusal what the client was set to, and hides secrets", function()
    local token = secret.new "dapi-of-the-settings"
    local settings = {
      { name = "host", value = "https://h", source = "DATABRICKS_HOST" },
      { name = "token", value = "dapi-in-plain-text", source = "argument" },
      { name = "auth_type", value = token, source = "/home/me/.databrickscfg [dev]" },
    }
    for _, given in ipairs { settings, function() return settings end } do
      local err = errors.from_response(answer(403, { message = "no" }), { settings = given })
      assert.matches("no %(PermissionDenied, HTTP 403%); called with host https://h %(DATABRICKS_HOST%), "
        .. "token %*%*%* %(argument%), auth_type %*%*%* %(/home/me/.databrickscfg %[dev%]%)$", tostring(err))
      assert.same({ name = "token", value = "***", source = "argument" }, err.settings[2])
      assert.same(err.settings, errors.to_table(err).settings)
      assert.is_nil(errors.from_response(answer(404, ""), { settings = given }).settings)
    end
    assert.is_nil(errors.from_response(answer(403, ""), {}).settings)
    assert.is_nil(errors.settings(nil))
  end)

  it("bounds what it quotes, without cutting a character", function()
    local err = read(400, ("ä"):rep(100000))
    assert.is_true(#err.message <= 500)
    assert.is_truthy(utf8.len(err.message))
    assert.equal("a b", errors.excerpt("a\r\n\0b"))
    local long = read(400, { message = "m", rest = ("x"):rep(2 << 20) }).message
    assert.is_true(#long <= 500)
    assert.matches("^Bad Request: {", long)
    local deep = { message = "bottom" }
    for _ = 1, 30 do deep = { deep } end
    local details = json.encode(read(400, { details = deep }).details)
    assert.is_nil(details:find("bottom", 1, true))
    assert.matches("^%[%[%[%[", details)
  end)

  it("keeps how long to wait, however it is said", function()
    assert.equal(7, read(429, "", { ["Retry-After"] = "7" }).retry_after)
    assert.equal(1.5, read(429, "", { ["retry-after"] = "1.5" }).retry_after)
    assert.equal(0.25, read(429, "", { ["retry-after-ms"] = "250", ["retry-after"] = "9" }).retry_after)
    local ms = { ["x-ms-retry-after-ms"] = " 250 ", ["retry-after"] = "9" }
    assert.equal(0.25, read(429, "", ms).retry_after)
    assert.equal(9, read(429, "", { ["retry-after-ms"] = "-1", ["retry-after"] = "9" }).retry_after)
    assert.equal(2147483.648, read(429, "", { ["retry-after-ms"] = ("9"):rep(400) }).retry_after)
    for _, bad in ipairs { "soon", "2026-01-01T00:00:00Z", "-3", "1e3", "nan", "1.", "0x10", "" } do
      assert.is_nil(read(429, "", { ["retry-after"] = bad, ["retry-after-ms"] = bad }).retry_after, bad)
    end
    assert.is_nil(read(429, "").retry_after)
    local details = { { ["@type"] = "type.googleapis.com/google.rpc.RetryInfo", retry_delay = "42.5s" } }
    local err = read(429, { error_code = "X", message = "m", details = details })
    assert.equal(42.5, err.retry_after)
    assert.equal("42.5s", err.details[1].retry_delay)
    for _, bad in ipairs { "-1s", "1", "s", "1e9s", json.null, { seconds = -1 }, { seconds = {} } } do
      details[1].retry_delay = bad
      assert.is_nil(read(429, { details = details }).retry_after)
    end
  end)

  it("keeps the request's id, the response and the context", function()
    local res = answer(404, "", { ["X-Request-Id"] = "r-9" })
    meta.set(res, { timing = { total = 1 } })
    local err = errors.from_response(res, { operation = "op", object = "ob" })
    assert.same({ "r-9", "op", "ob" }, { err.request_id, err.operation, err.object })
    assert.equal(res, err.response)
    assert.equal(1, meta.get(err).timing.total)
  end)

  it("shows no secret that a server sends back", function()
    local token = secret.new("dapi-echoed-token")
    local err = read(401, { error_code = "U", message = "the token dapi-echoed-token is not valid" })
    assert.equal("the token *** is not valid", err.message)
    local echoed = '{"message":"dapi-echoed\\u002dtoken","details":[{"a":["dapi-echoed\\u002dtoken"]}]}'
    err = read(401, echoed)
    assert.same({ "***", "***" }, { err.message, err.details[1].a[1] })
    err = read(401, { error = "of dapi-echoed-token", external_model_message = "m" })
    assert.equal("of ***", err.envelope.message)
    assert.is_true(secret.is(token))
  end)

  it("survives a body that cannot be read", function()
    local res = response.new {
      status = 500, read = function() return nil, errors.new("TruncatedStream", { message = "cut" }) end,
    }
    local err = errors.from_response(res)
    assert.equal("InternalError", err.kind)
    assert.equal("TruncatedStream", err.cause.kind)
  end)
end)

describe("wire_error", function()
  local wire_error = require "sluice.wire_error"

  it("reads a body apart from its mapping", function()
    local found = wire_error.read(answer(400, ""), '{"error_code":"C","message":"m"}')
    assert.same({ message = "m", code = "C" }, found)
  end)

  it("reads what a client of its own finds", function()
    local details = { { ["@type"] = "x/google.rpc.RetryInfo", retryDelay = "3s" } }
    assert.equal(3.0, wire_error.retry_hint(details))
    assert.equal("3s", wire_error.detail(details, "RetryInfo").retryDelay)
    assert.is_nil(wire_error.login_page(answer(302, "", { location = "/elsewhere" })))
    assert.same({ code = "C" }, errors.wire_fields { message = "m", code = "C" })
    assert.equal("Aborted", errors.kind_of_code "ABORTED")
  end)

  it("counts a date from the wall clock of the running clock", function()
    local task = require "sluice.task"
    task.simulate(function()
      local res = answer(503, "", { ["retry-after"] = "Thu, 01 Jan 2026 00:01:00 GMT" })
      assert.equal(60, wire_error.retry_after(res))
      task.sleep(20)
      assert.is_true(math.abs(wire_error.retry_after(res) - 40) < 0.001)
    end, { wall = 1767225600 })
  end)
end)

describe("wire_error.from_frame", function()
  local from_frame = require("sluice.wire_error").from_frame

  it("makes the same errors of frames as of answers", function()
    for _, case in ipairs {
      { '{"error":{"message":"m","type":"server_error","code":null}}', "InternalError", "m", "server_error" },
      { '{"error":{"message":"m","type":"t","code":"rate_limit_exceeded"}}', "TooManyRequests", "m",
        "rate_limit_exceeded" },
      { '{"error":{"message":"m","type":"invalid_request_error","code":"odd"}}', "BadRequest", "m", "odd" },
      { '{"error":{"message":"m","code":429}}', "TooManyRequests", "m", "429", 429 },
      { '{"error":{"message":"m","code":"503","type":null}}', "TemporarilyUnavailable", "m", "503", 503 },
      { '{"error":{"code":8,"status":"RESOURCE_EXHAUSTED","message":"m"}}', "ResourceExhausted", "m",
        "RESOURCE_EXHAUSTED" },
      { '{"error":"text"}', "ServiceError", "text" },
      { '{"error":"text","code":400}', "BadRequest", "text", nil, 400 },
      { '{"error_code":"REQUEST_LIMIT_EXCEEDED","message":"m"}', "RequestLimitExceeded", "m",
        "REQUEST_LIMIT_EXCEEDED" },
      { '{"error_code":"DEADLINE_EXCEEDED","message":"m"}', "DeadlineExceeded", "m", "DEADLINE_EXCEEDED" },
      { '{"error_code":404,"message":"m"}', "NotFound", "m", "404", 404 },
      { '{"type":"error","error":{"type":"overloaded_error","message":"m"}}', "ServiceError", "m",
        "overloaded_error" },
      { '{"type":"error","code":"server_error","message":"m","param":null}', "InternalError", "m",
        "server_error" },
      { '{"type":"response.failed","response":{"error":{"code":"server_error","message":"m"}}}',
        "InternalError", "m", "server_error" },
      { '{"object":"error","message":"m","type":"BadRequestError","code":400}', "BadRequest", "m", nil, 400 },
      { '{"error":"Received","external_model_message":{"error_code":"UPSTREAM_ERROR","message":"i"}}',
        "ServiceError", "i", "UPSTREAM_ERROR" },
      { '{"choices":[],"error":{"message":"m"}}', "ServiceError", "m" },
      { '{"error":{"unread":1}}', "ServiceError", "the stream ended with an error that says nothing" },
    } do
      local err = assert(from_frame(json.decode(case[1])), case[1])
      assert.same({ table.unpack(case, 2, 5) }, { err.kind, err.message, err.code, err.status }, case[1])
      assert.is_true(errors.is(err))
    end
  end)

  it("passes over frames that tell of none", function()
    for _, text in ipairs {
      '{"choices":[{"delta":{"content":"error"}}]}', '{"error":null,"choices":[]}', '{"error":{}}',
      '{"error":""}', '{"error":false}', '{"error":17}', '{}', '[]', '[{"error":"x"}]', '"error"', "12",
      '{"choices":[],"error_code":"X"}', '{"error_code":null}',
      '{"type":"response.failed","response":{"error":null}}',
    } do
      assert.is_nil(from_frame(json.decode(text)), text)
    end
    assert.is_nil(from_frame(nil))
  end)

  it("takes for an error whatever comes under the event error", function()
    local event = { event = "error" }
    for text, expected in pairs {
      ["PERMISSION_DENIED: not you"] = "PermissionDenied", ["it broke"] = "ServiceError",
      ['{"message":"m","code":"NOT_FOUND"}'] = "NotFound",
    } do
      assert.equal(expected, from_frame(text, event).kind)
    end
    assert.equal("m", from_frame({ message = "m" }, event).message)
    assert.is_nil(from_frame("PERMISSION_DENIED: not you"))
  end)

  it("adds the context, tells how long to wait, and shows no secret", function()
    local token <const> = secret.new "dapi-in-a-frame"
    local details = { { ["@type"] = "type.googleapis.com/google.rpc.RetryInfo", retry_delay = "2s" } }
    local frame = { error_code = "RESOURCE_EXHAUSTED", message = "dapi-in-a-frame", details = details }
    local err = from_frame(frame,
      { operation = "stream endpoint", object = "e", request_id = "r", event = "message" })
    assert.equal("stream endpoint e: *** (ResourceExhausted, RESOURCE_EXHAUSTED, request r)", tostring(err))
    assert.same({ 2.0, true, nil }, { err.retry_after, err.retryable, err.event })
    err = from_frame { error = { details = { "dapi-in-a-frame" }, message = "m" } }
    assert.same({ "***" }, err.details)
    assert.is_true(secret.is(token))
  end)
end)

describe("the readers of errors", function()
  local random = require("sluice.random").new(4)

  local NAMES <const> = {
    "error", "error_code", "message", "code", "type", "status", "detail", "details", "schemas", "scimType",
    "external_model_message", "external_model_error", "param", "choices", "object", "response", "@type",
    "retry_delay", "retryDelay", "seconds", "nanos", "request_id", "msg",
  }
  local LEAVES <const> = {
    "text", "", "null", "error", "response.failed", "429", "1.5s", 429, -1, 2 ^ 70, 1.5, true, false,
    json.null, "type.googleapis.com/google.rpc.RetryInfo", "CODE: text", "a\255b", "<pre>x</pre>",
    '{"external_model_error":{"message":"m"}}',
  }

  local function pick(list)
    return list[1 + math.floor(random() * #list)]
  end

  local function tree(depth)
    local die = random()
    if depth == 0 or die < 0.4 then return pick(LEAVES) end
    local made = die < 0.5 and json.array {} or {}
    for index = 1, math.floor(random() * 4) do
      made[json.is_array(made) and index or pick(NAMES)] = tree(depth - 1)
    end
    return made
  end

  it("make an err of anything, and raise for nothing", function()
    for _ = 1, 3000 do
      local body = tree(5)
      local err = read(400 + math.floor(random() * 200), type(body) == "table" and body or tostring(body))
      assert.is_true(errors.is(err) and #err.message <= 500 and #tostring(err) < 4000)
      assert.is_true(err.retry_after == nil or err.retry_after >= 0 and err.retry_after <= 2 ^ 31)
      assert.is_string(json.encode(err))
      local event = random() < 0.5 and "error" or nil
      local framed = require("sluice.wire_error").from_frame(body, { event = event })
      assert.is_true(framed == nil or errors.is(framed))
    end
  end)

  it("survive a body that is cut or spoilt anywhere", function()
    local body = json.encode { error_code = "X", message = "m", details = { { ["@type"] = "x", a = { 1 } } } }
    for at = 1, #body do
      assert.equal(429, read(429, body:sub(1, at)).status)
      assert.equal(429, read(429, body:sub(1, at - 1) .. "\0" .. body:sub(at + 1)).status)
    end
  end)
end)

describe("docs/errors.md", function()
  local function text_of(path)
    local file <close> = assert(io.open(path, "rb"))
    return file:read "a"
  end

  it("lists every kind, under its parent", function()
    local tree = text_of("docs/errors.md"):match("## The kinds\n(.-)\nThe tree below")
    local listed, parent = {}, nil
    for line in tree:gmatch "[^\n]+" do
      local indent, first = line:match "^( *)(%u%a+)"
      if first and #indent == 0 then parent = first end
      for name in line:gmatch "%u%l%a+" do
        if first and errors.unknown_kind(name) == nil then listed[name] = parent end
      end
      if first then
        assert.is_nil(errors.unknown_kind(first), first)
        if #indent == 2 then assert.is_true(errors.new(first):is(parent), first) end
      end
    end
    local source = text_of("lua/sluice/errors.lua"):match("local parents = (%b{})")
    for name in source:gmatch "\n  (%u%a+) = " do
      if name ~= "APIError" and name ~= "TLSError" then assert.is_string(listed[name], name) end
    end
  end)
end)
