-- SPDX-License-Identifier: MIT
local base64 = require "sluice.base64"
local redact = require "sluice.transports.redact"
local secret = require "sluice.secret"

describe("transports.redact", function()
  it("knows a secret by its name", function()
    local redactor = redact.new { "X-Tenant" }
    for _, name in ipairs {
      "token", "access_token", "accessToken", "X-Auth-Token", "password", "client_secret", "clientSecret",
      "api_key",
      "OPENAI_API_KEY", "x-api-key", "apikey", "Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie",
      "openai_api_key_plaintext", "aws_secret_access_key", "private_key", "token_value", "X-Amz-Signature",
      "Ocp-Apim-Subscription-Key", "assertion", "x-tenant", "X-TENANT",
    } do assert.is_true(redactor:is_secret_name(name), name) end
    for _, name in ipairs {
      "tokens", "max_tokens", "total_tokens", "token_type", "key", "content", "secret_scope",
      "x-request-id", "",
      "tokenizer", "password_policy", "expires_in", "tenant",
    } do assert.is_false(redactor:is_secret_name(name), name) end
  end)

  it("takes them out of JSON, wherever it stands", function()
    local redactor = redact.new()
    assert.equal('{"a":1,"password": "***","b":{"token":"***"},"max_tokens":5,"secret":""}',
      redactor:text '{"a":1,"password": "x","b":{"token":"a\\"b\\\\"},"max_tokens":5,"secret":""}')
    assert.equal('data: {"access_token":"***"}\n\ndata: {"x":"y"}\n\n',
      redactor:text 'data: {"access_token":"abcdef"}\n\ndata: {"x":"y"}\n\n')
    assert.equal([[{"arguments":"{\"api_key\": \"***\",\"q\":\"x\"}"}]],
      redactor:text [[{"arguments":"{\"api_key\": \"abc\",\"q\":\"x\"}"}]])
    assert.equal('{"token":"***', redactor:text '{"token":"cut in the mid')
  end)

  it("leaves a model's vocabulary alone", function()
    local text = '{"content":[{"token":" the","logprob":-0.1,"bytes":[32]},{"token":"a","bytes":null}]}'
    assert.equal(text, redact.new():text(text))
  end)

  it("takes them out of forms, parts and URLs", function()
    local redactor = redact.new()
    assert.equal("grant_type=client_credentials&client_secret=***&scope=all",
      redactor:text("grant_type=client_credentials&client_secret=a%20b&scope=all",
        "application/x-www-form-urlencoded"))
    assert.equal('--b\r\nContent-Disposition: form-data; name="password"\r\n\r\n***\r\n--b\r\n'
      .. 'Content-Disposition: form-data; name="x"\r\n\r\ny\r\n--b--',
      redactor:text('--b\r\nContent-Disposition: form-data; name="password"\r\n\r\nab\r\ncd\r\n--b\r\n'
      .. 'Content-Disposition: form-data; name="x"\r\n\r\ny\r\n--b--', "multipart/form-data; boundary=b"))
    assert.equal("https://***@h:1/p?a=1&api_key=***&b=2",
      redactor:url "https://user:pw@h:1/p?a=1&api_key=k&b=2")
    assert.equal("/p?token=***", redactor:url "/p?token=k")
    assert.equal("/p?token=&=x&token=***#y", redactor:url "/p?token=&=x&token=a=b#y")
  end)

  it("takes them out of headers, and what they held out of everything after", function()
    local redactor = redact.new()
    assert.same({ { "Authorization", "***" }, { "X", "***" }, { "Accept", "a" }, { "Cookie", "***" } },
      redactor:headers { { "Authorization", "Bearer abcdefgh" }, { "X", secret.new "hidden-value" },
        { "Accept", "a" }, { "Cookie", "id=12345678" } })
    redactor:learn("Basic " .. base64.encode "someone:their-password")
    assert.equal("*** and *** and *** and ***",
      redactor:text "abcdefgh and hidden-value and id=12345678 and their-password")
    assert.equal("someone", redactor:text "someone")
    redactor:learn "short"
    assert.equal("short", redactor:text "short")
  end)

  it("knows some forms, and every live secret", function()
    local redactor = redact.new()
    local token = "dapi" .. ("0123456789abcdef"):rep(2)
    local key, bearer = "sk-" .. ("aB3_"):rep(6), ("x.y-"):rep(6)
    assert.equal("it was *** or *** or Bearer ***!",
      redactor:text("it was " .. token .. " or " .. key .. " or Bearer " .. bearer .. "!"))
    assert.equal("a bearer token, sk-1", redactor:text "a bearer token, sk-1")
    local live = secret.new "only alive in this spec"
    assert.equal("x***x", redactor:text "xonly alive in this specx")
    assert.is_true(secret.is(live))
  end)

  it("keeps the pieces apart as far as it can", function()
    local redactor = redact.new()
    assert.same({ '{"token":"***', '","a":"', 'bc"}' },
      redactor:pieces { '{"token":"01234', '56789","a":"', 'bc"}' } and
      redactor:pieces { '{"token":"0123456789', '","a":"', 'bc"}' })
    local pieces = redactor:pieces { "x01234", "567", "89y", "z" }
    assert.same({ "x***", "", "y", "z" }, pieces)
    assert.same({ "a", "b" }, redactor:pieces { "a", "b" })
    assert.same({}, redactor:pieces {})
  end)

  it("is quick with a long text", function()
    local started = os.clock()
    for _, letters in ipairs { "a", '"', "=", "&", "\\", "sk-", 'name=""', '\\"a\\":\\"', '"a": ' } do
      local text = letters:rep(200000 // #letters)
      redact.new():text(text, "application/x-www-form-urlencoded")
      redact.new():text(text, "multipart/form-data")
    end
    assert.is_true(os.clock() - started < 5)
  end)

  it("takes a rule of one's own", function()
    local redactor = redact.new(function(text) return (text:gsub("Erika", "NAME")) end)
    assert.same({ "hello NAME", "" }, redactor:pieces { "hello Er", "ika" })
    assert.equal("/NAME", redactor:url "/Erika")
    assert.same({ { "x", "NAME" } }, redactor:headers { { "x", "Erika" } })
  end)
end)
