-- SPDX-License-Identifier: MIT
local backoff = require "sluice.core.backoff"

describe("backoff.delay", function()
  it("doubles up to the cap, times the random number", function()
    for attempt, expected in ipairs { 0.5, 1, 2, 4, 8, 8, 8 } do
      assert.equal(expected, backoff.delay(attempt, 0.5, 8, 1))
      assert.equal(expected / 4, backoff.delay(attempt, 0.5, 8, 0.25))
    end
  end)

  it("is safe for any number of the try", function()
    assert.equal(8, backoff.delay(math.maxinteger, 0.5, 8, 1))
    assert.equal(0.5, backoff.delay(0, 0.5, 8, 1))
    assert.equal(0.5, backoff.delay(math.mininteger, 0.5, 8, 1))
    assert.equal(0, backoff.delay(5000, 0, 8, 1))
    assert.equal(1, backoff.delay(5000, 1e308, 1, 1))
  end)

  it("refuses what is no time", function()
    assert.has_error(function() backoff.delay(1, -1, 8, 1) end)
    assert.has_error(function() backoff.delay(1, 1, 0 / 0, 1) end)
    assert.has_error(function() backoff.delay(1, 1, 8, 2) end)
  end)
end)

describe("backoff.retry_after", function()
  local NOW = 784111777 -- Sun, 06 Nov 1994 08:49:37 GMT

  local function reads(text, expected)
    assert.equal(expected, backoff.retry_after(text, NOW), text)
  end

  it("reads seconds and fractions", function()
    reads("0", 0.0)
    reads("120", 120.0)
    reads(" 7\t", 7.0)
    reads("1.5", 1.5)
    reads(("9"):rep(400), 2147483648.0)
  end)

  it("reads the three forms of a date", function()
    reads("Sun, 06 Nov 1994 08:49:40 GMT", 3.0)
    reads("Sunday, 06-Nov-94 08:49:47 GMT", 10.0)
    reads("Sun Nov  6 08:49:57 1994", 20.0)
    reads("Mon, 07 Nov 1994 08:49:37 GMT", 86400.0)
    reads("Thu, 29 Feb 1996 00:00:00 GMT", 41440223.0)
  end)

  it("takes a date that has passed for now", function()
    reads("Sun, 06 Nov 1994 08:49:30 GMT", 0.0)
    reads("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)
  end)

  it("puts a two-digit year within 50 years from now", function()
    reads("Sunday, 06-Nov-44 08:49:37 GMT", 1577923200.0)
    reads("Monday, 06-Nov-45 08:49:37 GMT", 0.0)
    local y2020 = 1577836800
    assert.equal(31622400.0, backoff.retry_after("Friday, 01-Jan-21 00:00:00 GMT", y2020))
  end)

  it("reads plain numbers apart, without dates", function()
    for text, expected in pairs {
      ["0"] = 0, ["250"] = 250, [" 1.5\t"] = 1.5, ["007"] = 7, [("9"):rep(400)] = 2147483648,
    } do
      assert.equal(expected, backoff.decimal(text), text)
    end
    for _, text in ipairs {
      "", " ", "-1", "+1", "1.", ".5", "1e3", "0x10", "inf", "nan", "1 2", "1.5.2", "1,5", "1\0",
      "Sun, 06 Nov 1994 08:49:37 GMT", "2026-01-01T00:00:00Z",
    } do
      assert.is_nil(backoff.decimal(text), text)
    end
  end)

  it("reads nothing else", function()
    for _, text in ipairs {
      "", " ", "-1", "+1", "1.", ".5", "1e3", "0x10", "inf", "nan", "1 2", "soon", "12s",
      "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT",
      "Sun, 06 Nov 1994 08:49:37 PST", "Sun, 06 Nov 1994 08:49:37", "sun, 06 nov 1994 08:49:37 gmt",
      "Sun, 6 Nov 1994 08:49:37 GMT", "Xyz, 06 Nov 1994 08:49:37 GMT", "Wed, 29 Feb 1995 00:00:00 GMT",
      "Sun, 06 Nov 0000 08:49:37 GMT", "1\0", "2026-01-01", "2026-01-01T00:00:00Z", "20260101T000000Z", "-0",
      "Sun, 06 Nov 1994 08:49:37 GMT; x", "Sun Nov 6 08:49:37 1994", "Sunday, 06-Nov-1994 08:49:37 GMT",
      "Sun, 06 Nov 99999 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:61 GMT", "1.5s", "1 .5", "1_000", "٣",
    } do
      assert.is_nil(backoff.retry_after(text, NOW), text)
    end
  end)
end)
