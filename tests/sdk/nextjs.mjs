// config/nextjs.toml as it stands, played by `mintgate dev` before an application that judges its requests with
// @clerk/backend, as Clerk's middleware in Next.js does. MINTGATE_BIN is the binary.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer, request as call } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { createClerkClient } from "@clerk/backend";
import { check, finish } from "./support.mjs";

const binary = process.env.MINTGATE_BIN;
if (!binary) throw new Error("set MINTGATE_BIN to the binary");
const sample = fileURLToPath(new URL("../../config/nextjs.toml", import.meta.url));
const party = "https://app.example.com";

// --- the application, and the API beside it ---

let clerk;
const application = createServer(async (request, response) => {
  const state = await clerk.authenticateRequest(
    new Request(`http://localhost${request.url}`, { method: request.method, headers: request.headers }),
    { authorizedParties: [party] },
  );
  const auth = state.toAuth();
  response.setHeader("content-type", "application/json");
  response.end(
    JSON.stringify({
      status: state.status,
      reason: state.reason,
      user: auth?.userId ?? null,
      location: state.headers.get("location"),
      url: request.url,
      headers: request.headers,
    }),
  );
});
await new Promise((listening) => application.listen(0, "127.0.0.1", listening));
const upstream = `http://127.0.0.1:${application.address().port}`;

// --- mintgate ---

const free = ["--port", "--admin-port", "--emulator-port"].flatMap((flag) => [flag, "0"]);
const dev = spawn(binary, ["dev", "--config", sample, "--upstream", upstream, ...free], {
  stdio: ["ignore", "pipe", "ignore"],
});
process.on("exit", () => dev.kill());
let told = "";
for await (const line of createInterface({ input: dev.stdout })) {
  told += `${line}\n`;
  if (line.startsWith("Stop with")) break;
}
const found = (pattern) => told.match(pattern)?.[1] ?? assert.fail(`${pattern} is not in\n${told}`);
const gateway = found(/^mintgate +(\S+)/m);
const api = found(/CLERK_API_URL=(\S+)/);
clerk = createClerkClient({
  apiUrl: api,
  secretKey: found(/CLERK_SECRET_KEY=(\S+)/),
  publishableKey: found(/CLERK_PUBLISHABLE_KEY=(\S+)/),
  telemetry: { disabled: true },
});

const fresh = async (session) => (await fetch(`${api}/_emulator/token?session=${session}`)).text();
/** A browser's request; `fetch` would not send a cookie. */
const get = (path, headers = {}, method = "GET") =>
  new Promise((answered, failed) => {
    const sent = call(`${gateway}${path}`, { headers, method }, async (response) => {
      let text = "";
      for await (const part of response) text += part;
      answered({ status: response.statusCode, code: response.headers["x-mintgate-error"], body: JSON.parse(text) });
    });
    sent.on("error", failed).end();
  });
const cookies = (token, more = "") => ({ cookie: `__session=${token}; __client_uat=1; __clerk_db_jwt=dev${more}` });
const page = { accept: "text/html", "sec-fetch-dest": "document" };

// --- what must hold ---

await check("signed in by cookies that were set by hand", async () => {
  const token = await fresh("sess_emulator_alice");
  for (const headers of [{}, page]) {
    const { status, body } = await get("/dashboard?a=1", { ...cookies(token, "; theme=dark"), ...headers });
    assert.deepEqual([status, body.status, body.user], [200, "signed-in", "user_emulator_alice"]);
    assert.equal(body.url, "/dashboard?a=1");
    assert.match(body.headers.cookie, /__session=.*__client_uat=1; __clerk_db_jwt=dev; theme=dark/);
  }
});

await check("signed in by the Authorization header", async () => {
  const { body } = await get("/", { authorization: `Bearer ${await fresh("sess_emulator_bob")}` });
  assert.deepEqual([body.status, body.user], ["signed-in", "user_emulator_bob"]);
});

await check("signed out: the application decides", async () => {
  const { status, code, body } = await get("/dashboard", { cookie: "__clerk_db_jwt=dev" });
  assert.deepEqual([status, code, body.status, body.user], [200, undefined, "signed-out", null]);
});

await check("a page without any cookie is sent to a handshake that the emulator does not have", async () => {
  const { body } = await get("/dashboard", page);
  assert.deepEqual([body.status, body.reason], ["handshake", "dev-browser-missing"]);
  assert.match(body.location, /^https:\/\/mintgate-emulator-00\.clerk\.accounts\.dev\/v1\/client\/handshake/);
});

await check("a cookie that is not good is nobody's, by the application's own judgement", async () => {
  const token = await fresh("sess_emulator_alice");
  const broken = `${token.slice(0, -8)}AAAAAAAA`;
  const { status, body } = await get("/", cookies(broken));
  assert.deepEqual([status, body.status, body.reason], [200, "signed-out", "token-invalid-signature"]);
});

await check("the API gets a minted token, and neither the session nor Clerk's cookies", async () => {
  const token = await fresh("sess_emulator_alice");
  const spoofed = { "x-user-id": "user_admin", X_User_Org: "org_admin", "x-user-role": "admin" };
  const { status, body } = await get("/api/data/rows?a=1", { ...cookies(token, "; theme=dark"), ...spoofed });
  assert.equal(status, 200);
  assert.equal(body.url, "/rows?a=1");
  assert.equal(body.headers.cookie, "theme=dark");
  assert.equal(body.headers["x-user-id"], "user_emulator_alice");
  assert.deepEqual([body.headers["x_user_org"], body.headers["x-user-role"]], [undefined, undefined]);
  const minted = body.headers.authorization.replace(/^Bearer /, "");
  const [header, claims] = minted.split(".").slice(0, 2).map((part) => JSON.parse(Buffer.from(part, "base64url")));
  assert.deepEqual([header.cat, claims.sub], ["cl_B7d4PD222AAA", "user_emulator_alice"]);
  assert.equal(claims.exp - claims.iat, 300);
  // It is no session: the SDK refuses it too.
  assert.equal(body.reason, "token-type-mismatch");
});

await check("the API takes nobody, and no cookie of another page", async () => {
  const nobody = await get("/api/data/rows", { "x-user-id": "user_admin" });
  assert.deepEqual([nobody.status, nobody.code], [401, "session-missing"]);
  const token = await fresh("sess_emulator_alice");
  const foreign = await get("/api/data/rows", { ...cookies(token), origin: "https://evil.example" }, "POST");
  assert.deepEqual([foreign.status, foreign.code], [403, "origin-forbidden"]);
  const own = await get("/api/data/rows", { ...cookies(token), origin: party }, "POST");
  assert.equal(own.status, 200);
});

finish("config/nextjs.toml");
