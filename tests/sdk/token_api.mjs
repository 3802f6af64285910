// @clerk/backend as a client of mintgate's token API before the emulator: only the base URL is another one.
import assert from "node:assert/strict";
import { createClerkClient, verifyToken } from "@clerk/backend";
import { check, describe, finish, part, refusal, tokenApi } from "./support.mjs";

const { about } = await describe();
const caller = '{ name = "app", token = { env = "CALLER_TOKEN" }, templates = ["custom_hasura"] }';
const { url } = await tokenApi(about, caller);
const client = (secretKey, apiUrl = url) =>
  createClerkClient({ secretKey, publishableKey: about.publishable_key, apiUrl, telemetry: { disabled: true } });
const clerk = client(about.secret_key);
const [alice, bob] = about.sessions;
const fresh = async (session) => (await fetch(`${about.api_url}/_emulator/token?session=${session}`)).text();
const state = async () => (await fetch(`${about.api_url}/_emulator/state`)).json();
/** What the emulator has minted for a session. */
const mints = async (session) => (await state()).sessions.find(({ id }) => id === session).mints;
const begin = async ({ user_id }) => (await clerk.sessions.createSession({ userId: user_id })).id;

await check("a hundred calls one after the other are one mint", async () => {
  const id = await begin(alice);
  const { jwt } = await clerk.sessions.getToken(id, "plain");
  assert.equal(part(jwt, 1).sub, alice.user_id);
  for (let call = 1; call < 100; call += 1) assert.equal((await clerk.sessions.getToken(id, "plain")).jwt, jwt);
  assert.deepEqual((await mints(id)).templates, { plain: 1 });
});

await check("a hundred calls at once are one mint", async () => {
  const id = await begin(bob);
  const answers = await Promise.all(Array.from({ length: 100 }, () => clerk.sessions.getToken(id, "custom_hasura")));
  assert.equal(new Set(answers.map(({ jwt }) => jwt)).size, 1);
  assert.equal(part(answers[0].jwt, 1)["https://hasura.io/jwt/claims"]["x-hasura-user-id"], bob.user_id);
  assert.deepEqual((await mints(id)).templates, { custom_hasura: 1 });
});

await check("another life time is another token", async () => {
  const id = await begin(alice);
  for (const seconds of [undefined, 120, 120, undefined]) {
    const claims = part((await clerk.sessions.getToken(id, "plain", seconds)).jwt, 1);
    assert.equal(claims.exp - claims.iat, seconds ?? 60);
  }
  assert.deepEqual((await mints(id)).templates, { plain: 2 });
});

await check("session tokens are Clerk's each time", async () => {
  const id = await begin(alice);
  for (const seconds of [undefined, 90, 90]) {
    const claims = part((await clerk.sessions.getToken(id, undefined, seconds)).jwt, 1);
    assert.deepEqual([claims.sid, claims.exp - claims.iat], [id, seconds ?? 60]);
  }
  assert.deepEqual((await mints(id)).session, 3);
});

await check("whatever else is asked for passes", async () => {
  assert.equal((await clerk.sessions.getSession(alice.id)).userId, alice.user_id);
  const { data } = await clerk.sessions.getSessionList({ userId: bob.user_id });
  assert.ok(data.some(({ id }) => id === bob.id));
  assert.deepEqual((await clerk.jwks.getJwks()).keys.map(({ kid }) => kid), [about.kid]);
  const made = await clerk.jwtTemplates.create({ name: "made_here", claims: { mail: "{{user.primary_email_address}}" } });
  assert.equal(part((await clerk.sessions.getToken(alice.id, "made_here")).jwt, 1).mail, "alice@example.com");
  const changed = await clerk.jwtTemplates.update({ templateId: made.id, name: "made_here", claims: {}, lifetime: 300 });
  assert.equal(changed.lifetime, 300);
  await clerk.jwtTemplates.delete(made.id);
  assert.equal((await refusal(clerk.jwtTemplates.get(made.id))).status, 404);
});

await check("verifyToken and authenticateRequest have their keys from there", async () => {
  const token = await fresh(bob.id);
  const claims = await verifyToken(token, { secretKey: about.secret_key, apiUrl: url, skipJwksCache: true });
  assert.equal(claims.sub, bob.user_id);
  const request = new Request("https://app.example.com/", { headers: { Authorization: `Bearer ${await fresh(alice.id)}` } });
  const auth = (await clerk.authenticateRequest(request)).toAuth();
  assert.equal(auth.sessionId, alice.id);
  // As an application does it: the SDK's own getToken of a request.
  assert.ok(await auth.getToken({ template: "custom_hasura" }));
});

await check("errors are what the SDK sees from Clerk", async () => {
  for (const [call, expected] of [
    [() => client("sk_test_wrong").sessions.getToken(alice.id, "plain"), [401, "clerk_key_invalid"]],
    [() => clerk.sessions.getToken("sess_none", "plain"), [404, "resource_not_found"]],
    [() => clerk.sessions.getToken(alice.id, "none"), [404, "resource_not_found"]],
    [() => clerk.sessions.getToken(alice.id, "a b"), [404, "resource_not_found"]],
  ]) {
    const { status, code } = await refusal(call());
    assert.deepEqual([status, code], expected);
  }
  assert.equal((await refusal(clerk.sessions.getToken(alice.id, "none"))).longMessage, "No JWT template exists with name: none");
  for (const seconds of [29, 315360001]) {
    const { status, error } = await refusal(clerk.sessions.getToken(alice.id, "plain", seconds));
    assert.deepEqual([status, error.errors[0].meta.paramName], [422, "expires_in_seconds"]);
  }
});

await check("a revocation through it counts at once", async () => {
  const id = await begin(bob);
  assert.ok((await clerk.sessions.getToken(id, "plain")).jwt);
  assert.equal((await clerk.sessions.revokeSession(id)).status, "revoked");
  for (const template of ["plain", undefined]) {
    const { status, longMessage } = await refusal(clerk.sessions.getToken(id, template));
    assert.deepEqual([status, longMessage], [404, `No session was found with id ${id}`]);
  }
});

await check("a caller without the key has the tokens of its templates", async () => {
  const local = client("a-callers-own-token");
  const id = await begin(alice);
  for (let call = 0; call < 3; call += 1) assert.ok((await local.sessions.getToken(id, "custom_hasura")).jwt);
  assert.deepEqual((await mints(id)).templates, { custom_hasura: 1 });
  assert.equal((await local.sessions.getSession(id)).userId, alice.user_id);
  assert.equal((await local.jwks.getJwks()).keys.length, 1);
  assert.equal((await refusal(local.sessions.getToken(id, "plain"))).status, 404);
  assert.equal((await refusal(local.sessions.getToken(id))).status, 403);
  assert.equal((await refusal(local.users.getUserList())).status, 403);
});

// The last one: it makes the gateway pause.
await check("beyond the rate limit the answer is 429 and says when to come back", async () => {
  const fault = { endpoint: "mint", times: 1, status: 429, retry_after: 4 };
  const init = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(fault) };
  assert.ok((await fetch(`${about.api_url}/_emulator/faults`, init)).ok);
  const { status, code, error } = await refusal(clerk.sessions.getToken(await begin(alice), "postgrest"));
  assert.deepEqual([status, code, error.retryAfter], [429, "too_many_requests", 4]);
});

finish("@clerk/backend through the token API");
