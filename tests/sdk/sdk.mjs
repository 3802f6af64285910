// @clerk/backend as a client of the emulator: what the official JavaScript SDK asks, reads and verifies.
import assert from "node:assert/strict";
import { createClerkClient, verifyToken } from "@clerk/backend";
import { check, describe, finish } from "./support.mjs";

const { about } = await describe();
const clerk = createClerkClient({
  secretKey: about.secret_key,
  publishableKey: about.publishable_key,
  apiUrl: about.api_url,
  telemetry: { disabled: true },
});
const [alice, bob] = about.sessions;
const part = (jwt, index) => JSON.parse(Buffer.from(jwt.split(".")[index], "base64url"));
const fresh = async (session, query = "") =>
  (await fetch(`${about.api_url}/_emulator/token?session=${session}${query}`)).text();

/** The error of a call that must fail. */
async function refusal(call) {
  const error = await call.then(
    () => assert.fail("the call went through"),
    (error) => error,
  );
  assert.ok(Array.isArray(error.errors), `not a Clerk error: ${error}`);
  const [{ code, message, longMessage }] = error.errors;
  for (const text of [code, message, longMessage]) assert.equal(typeof text, "string");
  assert.match(error.clerkTraceId, /^[0-9a-f]{16}$/);
  return { status: error.status, code, longMessage, error };
}

await check("a template token", async () => {
  const { jwt } = await clerk.sessions.getToken(alice.id, "custom_hasura");
  const [header, claims] = [part(jwt, 0), part(jwt, 1)];
  assert.deepEqual(
    { alg: header.alg, cat: header.cat, kid: header.kid },
    { alg: "RS256", cat: "cl_B7d4PD222AAA", kid: about.kid },
  );
  assert.equal(claims["https://hasura.io/jwt/claims"]["x-hasura-user-id"], alice.user_id);
  assert.equal(claims.exp - claims.iat, 60);
  for (const name of ["sid", "v", "sts"]) assert.equal(claims[name], undefined);
});

await check("a template token with an expiry", async () => {
  const claims = part((await clerk.sessions.getToken(alice.id, "plain", 120)).jwt, 1);
  assert.equal(claims.exp - claims.iat, 120);
});

await check("a session token", async () => {
  const claims = part((await clerk.sessions.getToken(alice.id)).jwt, 1);
  assert.equal(claims.sid, alice.id);
  assert.equal(claims.exp - claims.iat, 60);
});

await check("a session token with an expiry", async () => {
  const claims = part((await clerk.sessions.getToken(alice.id, undefined, 90)).jwt, 1);
  assert.equal(claims.exp - claims.iat, 90);
});

await check("a session is read", async () => {
  const session = await clerk.sessions.getSession(alice.id);
  assert.equal(session.userId, alice.user_id);
  assert.equal(session.status, "active");
  assert.equal(session.lastActiveOrganizationId, alice.organization_id);
});

await check("sessions are listed", async () => {
  const { data, totalCount } = await clerk.sessions.getSessionList({ userId: bob.user_id });
  assert.equal(totalCount, 1);
  assert.equal(data[0].id, bob.id);
});

await check("the JWKS", async () => {
  const { keys } = await clerk.jwks.getJwks();
  assert.equal(keys.length, 1);
  assert.deepEqual([keys[0].kid, keys[0].kty, keys[0].alg, keys[0].use], [about.kid, "RSA", "RS256", "sig"]);
  const published = await (await fetch(about.jwks_url)).json();
  assert.equal(published.keys[0].n, keys[0].n);
});

await check("templates are listed, made, changed and removed", async () => {
  const { data } = await clerk.jwtTemplates.list({ limit: 20 });
  assert.deepEqual(data.map(({ name }) => name).sort(), [...about.templates].sort());
  const made = await clerk.jwtTemplates.create({ name: "made_here", claims: { mail: "{{user.primary_email_address}}" } });
  assert.equal(part((await clerk.sessions.getToken(alice.id, "made_here")).jwt, 1).mail, "alice@example.com");
  const changed = await clerk.jwtTemplates.update({ templateId: made.id, name: "made_here", claims: {}, lifetime: 300 });
  assert.equal(changed.lifetime, 300);
  await clerk.jwtTemplates.delete(made.id);
  assert.equal((await refusal(clerk.jwtTemplates.get(made.id))).status, 404);
});

await check("a wrong key is 401", async () => {
  const stranger = createClerkClient({ secretKey: "sk_test_wrong", apiUrl: about.api_url, telemetry: { disabled: true } });
  const { status, code } = await refusal(stranger.sessions.getToken(alice.id, "plain"));
  assert.deepEqual([status, code], [401, "clerk_key_invalid"]);
});

await check("an unknown session is 404 and names the session", async () => {
  const { status, code, longMessage } = await refusal(clerk.sessions.getToken("sess_none", "plain"));
  assert.deepEqual([status, code, longMessage], [404, "resource_not_found", "No session was found with id sess_none"]);
});

await check("an unknown template is 404 and names the template", async () => {
  const { status, code, longMessage } = await refusal(clerk.sessions.getToken(alice.id, "none"));
  assert.deepEqual([status, code, longMessage], [404, "resource_not_found", "No JWT template exists with name: none"]);
});

await check("a bad expiry is 422", async () => {
  for (const seconds of [29, 315360001]) {
    const { status, error } = await refusal(clerk.sessions.getToken(alice.id, "plain", seconds));
    assert.equal(status, 422);
    assert.equal(error.errors[0].meta.paramName, "expires_in_seconds");
  }
});

await check("verifyToken with the JWT key", async () => {
  const claims = await verifyToken(await fresh(alice.id), { jwtKey: about.jwt_key, issuer: about.issuer });
  assert.equal(claims.sid, alice.id);
});

await check("verifyToken with the JWKS", async () => {
  const token = await fresh(bob.id, "&azp=https://app.example.com");
  const claims = await verifyToken(token, {
    secretKey: about.secret_key,
    apiUrl: about.api_url,
    authorizedParties: ["https://app.example.com"],
  });
  assert.equal(claims.sub, bob.user_id);
});

await check("authenticateRequest with the header", async () => {
  const request = new Request("https://app.example.com/", { headers: { Authorization: `Bearer ${await fresh(alice.id)}` } });
  const auth = (await clerk.authenticateRequest(request)).toAuth();
  assert.equal(auth.sessionId, alice.id);
  assert.equal(auth.orgId, alice.organization_id);
  assert.equal(auth.orgRole, "org:admin");
  assert.deepEqual(auth.orgPermissions, ["org:reports:read", "org:reports:write", "org:teams:write"]);
});

await check("authenticateRequest refuses a template token", async () => {
  const { jwt } = await clerk.sessions.getToken(alice.id, "plain");
  const request = new Request("https://app.example.com/", { headers: { Authorization: `Bearer ${jwt}` } });
  const state = await clerk.authenticateRequest(request);
  assert.deepEqual([state.status, state.reason], ["signed-out", "token-type-mismatch"]);
});

// A session of its own, so that this file can run again against the same emulator.
await check("a revoked session mints nothing and is 404", async () => {
  const { id } = await clerk.sessions.createSession({ userId: bob.user_id });
  assert.ok((await clerk.sessions.getToken(id, "plain")).jwt);
  assert.equal((await clerk.sessions.revokeSession(id)).status, "revoked");
  assert.equal((await clerk.sessions.getSession(id)).status, "revoked");
  for (const template of ["plain", undefined]) {
    const { status, longMessage } = await refusal(clerk.sessions.getToken(id, template));
    assert.deepEqual([status, longMessage], [404, `No session was found with id ${id}`]);
  }
});

await check("calls are counted by session", async () => {
  const { id } = await clerk.sessions.createSession({ userId: alice.user_id });
  await clerk.sessions.getToken(id, "plain");
  await clerk.sessions.getToken(id);
  const state = await (await fetch(`${about.api_url}/_emulator/state`)).json();
  assert.deepEqual(state.sessions.find((session) => session.id === id).mints, { session: 1, templates: { plain: 1 } });
});

// The last one: it leaves nothing of the window.
await check("beyond the rate limit the answer is 429 and says when to come back", async () => {
  if (about.rate_limit === null) return;
  let last;
  for (let call = 0; call <= about.rate_limit && !last; call += 1) {
    last = await clerk.sessions.getSession(alice.id).then(() => undefined, (error) => error);
  }
  assert.equal(last?.status, 429);
  assert.equal(last.errors[0].code, "too_many_requests");
  assert.ok(Number.isInteger(last.retryAfter) && last.retryAfter >= 1 && last.retryAfter <= 10, `${last.retryAfter}`);
  assert.equal((await clerk.jwks.getJwks()).keys.length, 1);
});

finish("@clerk/backend");
