-- SPDX-License-Identifier: MIT
local base64 = require "sluice.base64"

describe("base64", function()
  it("knows the vectors of RFC 4648", function()
    local vectors = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=",
      foobar = "Zm9vYmFy", ["\255\254\0"] = "//4A", ["\251\239"] = "++8=" }
    for bytes, text in pairs(vectors) do
      assert.equal(text, base64.encode(bytes))
      assert.equal(bytes, base64.decode(text))
    end
  end)

  it("gives every byte back", function()
    local bytes = {}
    for byte = 0, 255 do bytes[#bytes + 1] = string.char(byte, 255 - byte, byte) end
    local all = table.concat(bytes)
    for cut = 0, 3 do assert.equal(all:sub(1 + cut), base64.decode(base64.encode(all:sub(1 + cut)))) end
  end)

  it("refuses what is none", function()
    for _, text in ipairs { "Z", "Zg", "Zg=", "Zg===", "Z=g=", "Zg==\n", "Zm9-", "====", "Zm9v=" } do
      assert.is_nil(base64.decode(text), text)
    end
  end)
end)
