-- SPDX-License-Identifier: MIT
-- How an endpoint differs from what is wanted: what is a difference, and what the service does by itself.
local drift = require "sluice.serving.drift"
local json = require "sluice.json"

-- What an endpoint of one model looks like when it is read.
local function found(changes)
  local endpoint = json.decode [[{
    "name": "e", "id": "0123", "creator": "me", "description": "", "route_optimized": false,
    "tags": [{ "key": "team", "value": "a" }, { "key": "set-by-a-policy", "value": "x" }],
    "config": {
      "config_version": 1,
      "served_entities": [{
        "name": "my_model-1", "entity_name": "main.default.my_model", "entity_version": "1",
        "workload_size": "Small", "workload_type": "CPU", "scale_to_zero_enabled": false,
        "creator": "me", "creation_timestamp": 1, "state": { "deployment": "DEPLOYMENT_READY" }
      }],
      "traffic_config": { "routes": [{ "served_model_name": "my_model-1", "served_entity_name": "my_model-1",
        "traffic_percentage": 100 }] }
    } }]]
  if changes then changes(endpoint, endpoint.config.served_entities[1]) end
  return endpoint
end

local function wanted(changes)
  local entity = { entity_name = "main.default.my_model", entity_version = "1", workload_size = "Small" }
  local body = { name = "e", config = { served_entities = { entity } } }
  if changes then changes(body, entity) end
  return body
end

local function text_of(body, endpoint)
  local differences = drift.between(body, endpoint)
  return differences and tostring(differences)
end

describe("no drift", function()
  it("is what the service fills in", function()
    for _, change in ipairs {
      function() end,
      function(body) body.config = nil end,
      function(body) body.config = json.null end,
      function(body) body.config.name = "e" end,
      function(_, entity) entity.name = "my_model-1" end,
      function(_, entity) entity.workload_type = "CPU" end,
      function(_, entity) entity.workload_type = json.null end,
      function(_, entity) entity.scale_to_zero_enabled = false end,
      function(_, entity) entity.entity_version = 1 end,
      function(_, entity) entity.environment_vars = {} end,
      function(_, entity) entity.burst_scaling_enabled = true end,
      function(body) body.description = "" end,
      function(body) body.route_optimized = false end,
      function(body) body.tags = { { key = "team", value = "a" } } end,
      function(body) body.tags = {} end,
      function(body) body.rate_limits, body.budget_policy_id = { { calls = 1 } }, "p" end,
      function(body) body.ai_gateway = { usage_tracking_config = { enabled = false } } end,
      function(body)
        local routes = { { served_model_name = "my_model-1", traffic_percentage = 100 } }
        body.config.traffic_config = { routes = routes }
      end,
      function(body)
        local routes = { { served_entity_name = "main.default.my_model-1", traffic_percentage = 100.0 } }
        body.config.traffic_config = { routes = routes }
      end,
      function(body)
        body.config = { served_models = { { model_name = "main.default.my_model", model_version = "1",
          scale_to_zero_enabled = false } } }
      end,
    } do
      assert.is_nil(text_of(wanted(change), found()))
    end
  end)

  it("is in a default name of another form, nor in the older form of the answer", function()
    assert.is_nil(text_of(wanted(), found(function(endpoint, entity)
      entity.name = "a-name-of-the-service"
      endpoint.config.traffic_config = nil
    end)))
    assert.is_nil(text_of(wanted(), found(function(endpoint, entity)
      entity.entity_name, entity.model_name = nil, "main.default.my_model"
      endpoint.config.served_models, endpoint.config.served_entities = { entity }, nil
    end)))
    local external = { provider = "openai", name = "gpt-4.1", task = "llm/v1/chat",
      openai_config = { openai_api_key = "{{secrets/a/b}}", openai_api_key_plaintext = "sk" } }
    local body = { name = "e", config = { served_entities = { { external_model = external } } } }
    assert.is_nil(text_of(body, found(function(endpoint)
      endpoint.config.served_entities = { { name = "gpt-4-1", external_model = { provider = "openai",
        name = "gpt-4.1", task = "llm/v1/chat", openai_config = { openai_api_key = "{{secrets/a/b}}" } } } }
      endpoint.config.traffic_config.routes[1].served_entity_name = "gpt-4-1"
    end)))
  end)

  it("is in the order of entities, routes and limits", function()
    local function two(first, second)
      local function entity(name) return { name = name, entity_name = "m", entity_version = name } end
      local function route(name)
        return { served_entity_name = name, traffic_percentage = name == "a" and 90 or 10 }
      end
      return {
        name = "e", config = {
          served_entities = { entity(first), entity(second) },
          traffic_config = { routes = { route(first), route(second) } },
        },
        ai_gateway = { rate_limits = { { key = first, calls = 1 }, { key = second, calls = 1 } } },
      }
    end
    assert.is_nil(text_of(two("a", "b"), two("b", "a")))
    local other = two("b", "a")
    other.ai_gateway.rate_limits[1].calls = 2
    assert.equal('ai_gateway.rate_limits: wanted [{"calls":1,"key":"a"},{"calls":1,"key":"b"}], '
      .. 'found [{"calls":2,"key":"b"},{"calls":1,"key":"a"}]', text_of(two("a", "b"), other))
    other = two("b", "a")
    other.ai_gateway.rate_limits[3] = { key = "c" }
    assert.is_table(drift.between(two("a", "b"), other))
  end)
end)

describe("drift", function()
  local ENTITY <const> = "config.served_entities.my_model-1"

  it("is each value that differs", function()
    for expected, change in pairs {
      [ENTITY .. '.entity_version: wanted "2", found "1"'] = function(_, entity)
        entity.entity_version = "2"
      end,
      [ENTITY .. '.workload_size: wanted "Large", found "Small"'] = function(_, entity)
        entity.workload_size = "Large"
      end,
      [ENTITY .. '.workload_type: wanted "GPU_SMALL", found "CPU"'] = function(_, entity)
        entity.workload_type = "GPU_SMALL"
      end,
      [ENTITY .. ".scale_to_zero_enabled: wanted true, found false"] = function(_, entity)
        entity.scale_to_zero_enabled = true
      end,
      [ENTITY .. ".min_provisioned_concurrency: wanted 4, found nothing"] = function(_, entity)
        entity.min_provisioned_concurrency = 4
      end,
      [ENTITY .. '.environment_vars.A: wanted "***", found nothing'] = function(_, entity)
        entity.environment_vars = { A = "1" }
      end,
      ['description: wanted "new", found ""'] = function(body) body.description = "new" end,
      ["route_optimized: wanted true, found false"] = function(body) body.route_optimized = true end,
      ['tags.team: wanted "b", found "a"'] = function(body) body.tags = { { key = "team", value = "b" } } end,
      ['tags.cost: wanted "", found nothing'] = function(body) body.tags = { { key = "cost" } } end,
      ['email_notifications.on_update_failure: wanted ["a@b"], found nothing'] = function(body)
        body.email_notifications = { on_update_failure = { "a@b" } }
      end,
      ["config.auto_capture_config.enabled: wanted true, found nothing"] = function(body)
        body.config.auto_capture_config = { enabled = true }
      end,
    } do
      assert.equal(expected, text_of(wanted(change), found()))
    end
  end)

  it("is a variable that the script sets no more, and a larger machine", function()
    local endpoint = found(function(_, entity)
      entity.environment_vars = { OLD = "1" }
      entity.workload_type = "GPU_LARGE"
    end)
    assert.equal(ENTITY .. '.environment_vars.OLD: wanted nothing, found "***"; '
      .. ENTITY .. '.workload_type: wanted "CPU", found "GPU_LARGE"', text_of(wanted(), endpoint))
  end)

  it("is an entity too many or too few, and its traffic", function()
    local function extra(endpoint)
      local config = endpoint.config
      config.served_entities[2] = {
        name = "canary", entity_name = "main.default.my_model", entity_version = "3",
      }
      config.traffic_config.routes[1].traffic_percentage = 90
      config.traffic_config.routes[2] = { served_entity_name = "canary", traffic_percentage = 10 }
    end
    local differences = drift.between(wanted(), found(extra))
    assert.same({
      { path = "config.served_entities.canary", found = "main.default.my_model 3" },
      { path = "config.traffic_config.canary", wanted = 0, found = 10 },
      { path = "config.traffic_config.my_model-1", wanted = 100, found = 90 },
    }, differences)
    assert.equal('config.served_entities.canary: wanted nothing, found "main.default.my_model 3"',
      tostring(differences[1]))
    local body = wanted(function(body)
      body.config.served_entities[2] = { name = "b", entity_name = "other" }
      body.config.traffic_config = { routes = {
        { served_model_name = "my_model-1", traffic_percentage = 50 },
        { served_model_name = "b", traffic_percentage = 50 },
      } }
    end)
    assert.equal('config.served_entities.b: wanted "other", found nothing; '
      .. "config.traffic_config.b: wanted 50, found 0; "
      .. "config.traffic_config.my_model-1: wanted 50, found 100", text_of(body, found()))
  end)

  it("is seen in the config that an update leads to", function()
    local endpoint = found()
    endpoint.pending_config = { served_entities = {
      { name = "my_model-2", entity_name = "main.default.my_model", entity_version = "2" },
    } }
    local body = wanted(function(_, entity) entity.entity_version, entity.workload_size = "2", nil end)
    assert.is_nil(text_of(body, endpoint))
  end)

  it("can be encoded and logged", function()
    local differences = drift.between(wanted(function(_, entity) entity.entity_version = "2" end), found())
    local text = json.encode(differences, { canonical = true })
    assert.equal('[{"found":"1","path":"' .. ENTITY .. '.entity_version","wanted":"2"}]', text)
  end)

  it("shows in no text what a variable is set to", function()
    local body = wanted(function(_, entity) entity.environment_vars = { KEY = "sk-1", SAME = "s" } end)
    local differences = drift.between(body, found(function(_, entity)
      entity.environment_vars = { KEY = "sk-2", SAME = "s" }
    end))
    assert.equal(1, #differences)
    assert.equal("sk-1", differences[1].wanted)
    assert.equal("sk-2", differences[1].found)
    assert.not_matches("sk%-", tostring(differences))
    assert.not_matches("sk%-", json.encode(differences))
  end)

  it("survives whatever a server or a script says", function()
    for _, endpoint in ipairs { {}, { config = 7 }, { config = { served_entities = "x" } }, { tags = "x" },
      { config = { served_entities = { 1, { name = 2, environment_vars = "x", external_model = 5 } },
        traffic_config = { routes = { 1, { traffic_percentage = {} }, { served_model_name = {},
          traffic_percentage = "7" } } } } },
      { config = json.null, pending_config = json.null, tags = json.null, ai_gateway = json.null },
    } do
      local bodies = {
        wanted(function(body)
          body.tags, body.ai_gateway = { 1, { key = "a", value = {} } }, { a = { b = 1 } }
        end),
        { config = { served_entities = { { name = 1 }, { external_model = {} }, {} }, traffic_config = {
          routes = {
            { served_entity_name = {}, traffic_percentage = 1 },
            { served_entity_name = 7, traffic_percentage = 9 },
          },
        } } },
      }
      for _, body in ipairs(bodies) do assert.is_table(drift.between(body, endpoint)) end
    end
  end)
end)
