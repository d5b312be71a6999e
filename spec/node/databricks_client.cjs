// SPDX-License-Identifier: MIT
// Drives the emulator as @databricks/sdk-experimental does: node databricks_client.cjs URL. Prints a line for each step.

const assert = require("node:assert");
const { Readable } = require("node:stream");
const { WorkspaceClient, Time, TimeUnits } = require("@databricks/sdk-experimental");

const host = process.argv[2];
const name = "judged";
const entity = (model, more) => ({ entity_name: `main.default.${model}`, entity_version: "1", ...more });
const messages = [{ role: "user", content: "hello there" }];
const timeout = new Time(30, TimeUnits.seconds);

async function step(title, f) {
  await f();
  console.log(`ok ${title}`);
}

async function text(stream) {
  let all = "";
  for await (const piece of stream instanceof Readable ? stream : Readable.from(stream)) all += piece;
  return all;
}

async function refused(promise, status, code) {
  await assert.rejects(promise, (error) => {
    assert.strictEqual(error.statusCode, status, error.message);
    assert.strictEqual(error.errorCode, code);
    return true;
  });
}

async function main() {
  const client = new WorkspaceClient({ host, token: "dapi-any", authType: "pat" });
  const serving = client.servingEndpoints;
  let id;

  await step("create and wait", async () => {
    const polls = [];
    const waiter = await serving.create({
      name,
      config: { served_entities: [entity("echo", { workload_size: "Small", scale_to_zero_enabled: true })] },
      tags: [{ key: "team", value: "specs" }],
    });
    assert.strictEqual(waiter.state.config_update, "IN_PROGRESS");
    assert.strictEqual(waiter.state.ready, "NOT_READY");
    const made = await waiter.wait({ timeout, onProgress: async (poll) => polls.push(poll.state.config_update) });
    assert.strictEqual(made.state.ready, "READY");
    assert.strictEqual(polls.at(-1), "NOT_UPDATING");
    assert.strictEqual(made.config.served_entities[0].state.deployment, "DEPLOYMENT_READY");
    assert.strictEqual(made.config.traffic_config.routes[0].traffic_percentage, 100);
    id = made.id;
  });

  await step("list and get", async () => {
    const seen = [];
    for await (const endpoint of serving.list()) seen.push(endpoint.name);
    assert.deepStrictEqual(seen, [name]);
    const got = await serving.get({ name });
    assert.strictEqual(got.permission_level, "CAN_MANAGE");
    assert.deepStrictEqual(got.tags, [{ key: "team", value: "specs" }]);
  });

  await step("query", async () => {
    const chat = await serving.query({ name, messages, max_tokens: 5 });
    assert.strictEqual(chat.choices[0].message.content, "hello there");
    assert.strictEqual(chat["served-model-name"], "echo-1");
    assert.strictEqual(chat.usage.total_tokens, chat.usage.prompt_tokens + chat.usage.completion_tokens);
    const completion = await serving.query({ name, prompt: "once" });
    assert.strictEqual(completion.choices[0].text, "once");
  });

  await step("errors", async () => {
    await refused(serving.get({ name: "absent" }), 404, "RESOURCE_DOES_NOT_EXIST");
    await refused(serving.create({ name }), 409, "RESOURCE_ALREADY_EXISTS");
    await refused(serving.create({ name: "no good" }), 400, "INVALID_PARAMETER_VALUE");
    await refused(serving.query({ name, messages: [] }), 400, "BAD_REQUEST");
    await refused(serving.query({ name: "absent", messages }), 404, "RESOURCE_DOES_NOT_EXIST");
  });

  await step("update and wait", async () => {
    const routes = [
      { served_entity_name: "echo-1", traffic_percentage: 0 },
      { served_entity_name: "table", traffic_percentage: 100 },
    ];
    const waiter = await serving.updateConfig({
      name,
      served_entities: [entity("echo"), entity("tabular", { name: "table" })],
      traffic_config: { routes },
    });
    assert.strictEqual(waiter.pending_config.config_version, 2);
    assert.strictEqual(waiter.config.config_version, 1);
    await refused(serving.updateConfig({ name, served_entities: [entity("echo")] }), 409, "RESOURCE_CONFLICT");
    const made = await waiter.wait({ timeout });
    assert.strictEqual(made.config.config_version, 2);
    const answer = await serving.query({ name, dataframe_records: [{ a: 2, b: 1 }] });
    assert.deepStrictEqual(answer.predictions, [3.5]);
    await refused(serving.query({ name, dataframe_records: [], inputs: [] }), 400, "BAD_REQUEST");
  });

  await step("an update that fails", async () => {
    const waiter = await serving.updateConfig({ name, served_entities: [entity("echo_deploy_fails")] });
    await assert.rejects(waiter.wait({ timeout }), /UPDATE_FAILED/);
    const got = await serving.get({ name });
    assert.strictEqual(got.state.ready, "READY");
    assert.strictEqual(got.config.config_version, 2);
    const logs = await serving.buildLogs({ name, served_model_name: "echo_deploy_fails-1" });
    assert.match(logs.logs, /Failed to deploy/);
    assert.match((await serving.logs({ name, served_model_name: "table" })).logs, /Listening/);
  });

  await step("gateway, limits, notifications", async () => {
    const limit = { calls: 100, renewal_period: "minute", key: "endpoint" };
    const gateway = await serving.putAiGateway({ name, rate_limits: [limit], usage_tracking_config: { enabled: true } });
    assert.strictEqual(gateway.rate_limits[0].calls, 100);
    assert.strictEqual((await serving.put({ name, rate_limits: [limit] })).rate_limits[0].calls, 100);
    assert.ok(await serving.patch({ name, add_tags: [{ key: "a" }] }));
    assert.ok(await serving.updateNotifications({ name, email_notifications: {} }));
  });

  await step("permissions", async () => {
    const request = { serving_endpoint_id: id };
    const levels = await serving.getPermissionLevels(request);
    assert.deepStrictEqual(levels.permission_levels.map((level) => level.permission_level).sort(),
      ["CAN_MANAGE", "CAN_QUERY", "CAN_VIEW"]);
    const entry = { user_name: "ann@example.com", permission_level: "CAN_QUERY" };
    const set = await serving.setPermissions({ ...request, access_control_list: [entry] });
    assert.strictEqual(set.object_id, `/serving-endpoints/${id}`);
    const got = await serving.getPermissions(request);
    assert.ok(got.access_control_list.some((one) => one.user_name === "ann@example.com"));
  });

  await step("metrics and openapi", async () => {
    const metrics = await serving.exportMetrics({ name });
    assert.match(await text(metrics.contents), /request_count_total\{[^}]*\} \d/);
    const openapi = await serving.getOpenApi({ name });
    assert.match(await text(openapi.contents ?? [JSON.stringify(openapi)]), /openapi/);
  });

  await step("provisioned throughput", async () => {
    const served = { entity_name: "system.ai.small", entity_version: "1", provisioned_model_units: 50 };
    const waiter = await serving.createProvisionedThroughputEndpoint({ name: "pt-one", config: { served_entities: [served] } });
    assert.strictEqual((await waiter.wait({ timeout })).state.ready, "READY");
    await serving.delete({ name: "pt-one" });
  });

  await step("OAuth", async () => {
    const machine = new WorkspaceClient({ host, clientId: "bot", clientSecret: "any", authType: "oauth-m2m" });
    assert.strictEqual((await machine.servingEndpoints.get({ name })).name, name);
    assert.strictEqual((await machine.currentUser.me()).userName, "bot");
  });

  await step("delete", async () => {
    await serving.delete({ name });
    await refused(serving.get({ name }), 404, "RESOURCE_DOES_NOT_EXIST");
    await refused(serving.delete({ name }), 404, "RESOURCE_DOES_NOT_EXIST");
  });
}

main().then(() => console.log("done"), (error) => {
  console.error(error);
  process.exitCode = 1;
});
