// The application's tests: a real Clerk API on loopback, without an account and without the internet.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createApp, listener } from "./app.mjs";

let clerk; // what the emulator says about itself
let child;
let server;
let app = async () => new Response(null, { status: 503 });
let base;

before(async () => {
  // The application's address first: the emulator is told where to send webhooks.
  server = createServer(listener((request) => app(request)));
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  base = `http://127.0.0.1:${server.address().port}`;
  const seed = fileURLToPath(new URL("seed.toml", import.meta.url));
  const flags = ["emulator", "--json", "--listen", "127.0.0.1:0", "--seed", seed, "--webhook-url", `${base}/webhooks`];
  const binary = process.env.MINTGATE_BIN ?? "mintgate";
  child = spawn(binary, flags, { stdio: ["ignore", "pipe", "inherit"] });
  const missing = `cannot start ${binary}: install it into the path, or let MINTGATE_BIN name it`;
  await once(child, "spawn").catch((cause) => assert.fail(`${missing} (${cause.message})`));
  for await (const line of createInterface({ input: child.stdout })) {
    clerk = JSON.parse(line);
    break;
  }
  app = createApp({
    CLERK_SECRET_KEY: clerk.secret_key,
    CLERK_PUBLISHABLE_KEY: clerk.publishable_key,
    CLERK_API_URL: clerk.api_url,
    CLERK_WEBHOOK_SIGNING_SECRET: clerk.webhook_secret,
  });
});

after(() => {
  child?.kill();
  server?.close();
  server?.closeAllConnections();
});

afterEach(() => emulator("DELETE", "/faults"));

/** A helper of the emulator's. */
async function emulator(method, path, body) {
  const init = { method, headers: { "content-type": "application/json" }, body: body && JSON.stringify(body) };
  const answer = await fetch(`${clerk.api_url}/_emulator${path}`, init);
  assert.ok(answer.ok, await answer.clone().text());
  return answer;
}

/** A session token, as the browser would send it. */
const token = async (session) => (await emulator("GET", `/token?session=${session}`)).text();
const reports = (token) => fetch(`${base}/reports`, { headers: token ? { authorization: `Bearer ${token}` } : {} });
const claims = (jwt) => JSON.parse(Buffer.from(jwt.split(".")[1], "base64url"));

async function eventually(what, isSo) {
  for (let tries = 0; tries < 500; tries += 1) {
    if (await isSo()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail(`never: ${what}`);
}

test("a user gets a token with the claims of the template", async () => {
  const answer = await reports(await token("sess_ann"));
  assert.equal(answer.status, 200);
  const { user, token: minted } = await answer.json();
  assert.equal(user, "user_ann");
  assert.equal(claims(minted).role, "editor");
  assert.equal(claims(minted).org, "org_acme");
  assert.equal(claims(minted).exp - claims(minted).iat, 300);
});

test("nobody gets nothing", async () => {
  assert.equal((await reports()).status, 401);
  assert.equal((await reports("eyJhbGciOiJub25lIn0.e30.")).status, 401);
});

test("a change of the user is in the next token", async () => {
  await emulator("PATCH", "/users/user_ann", { public_metadata: {} });
  assert.equal(claims((await (await reports(await token("sess_ann"))).json()).token).role, "reader");
  await emulator("PATCH", "/users/user_ann", { public_metadata: { role: "editor" } });
});

test("when Clerk throttles, the user is told when to come back", async () => {
  await emulator("POST", "/faults", { endpoint: "mint", times: 1, status: 429, retry_after: 3 });
  const answer = await reports(await token("sess_ann"));
  assert.deepEqual([answer.status, answer.headers.get("retry-after")], [503, "3"]);
  assert.equal((await reports(await token("sess_ann"))).status, 200);
});

test("when Clerk fails, the application does not sign anybody out", async () => {
  for (const fault of [{ status: 503 }, { reset: true }]) {
    await emulator("POST", "/faults", { endpoint: "mint", times: 1, ...fault });
    assert.equal((await reports(await token("sess_ann"))).status, 503);
  }
});

test("a revoked session is refused although its token is still good", async () => {
  const { id } = await (await emulator("POST", "/sessions", { user_id: "user_ann" })).json();
  const held = await token(id);
  assert.equal((await reports(held)).status, 200);
  await fetch(`${clerk.api_url}/v1/sessions/${id}/revoke`, {
    method: "POST",
    headers: { authorization: `Bearer ${clerk.secret_key}` },
  });
  // Minting fails at once; the webhook spares the application the call.
  assert.equal((await reports(held)).status, 401);
  await eventually("the webhook is delivered", async () => {
    const { deliveries } = await (await emulator("GET", "/webhooks")).json();
    return deliveries.some(({ type, state }) => type === "session.revoked" && state === "delivered");
  });
  const calls = async () => (await (await emulator("GET", "/state")).json()).calls.requests;
  const before = await calls();
  assert.equal((await reports(held)).status, 401);
  assert.equal(await calls(), before, "no call to Clerk");
});

test("an event that Clerk did not sign is refused", async () => {
  const headers = { "svix-id": "msg_1", "svix-timestamp": `${Math.floor(Date.now() / 1000)}`, "svix-signature": "v1,AAAA" };
  const body = JSON.stringify({ type: "session.revoked", data: { id: "sess_ann" } });
  assert.equal((await fetch(`${base}/webhooks`, { method: "POST", headers, body })).status, 400);
  assert.equal((await reports(await token("sess_ann"))).status, 200);
});
