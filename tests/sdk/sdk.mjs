// @clerk/backend as a client of the emulator: what the official JavaScript SDK asks, reads and verifies.
import assert from "node:assert/strict";
import { createClerkClient, verifyToken } from "@clerk/backend";
import { check, describe, finish, part, refusal } from "./support.mjs";

const { about } = await describe();
const clerk = createClerkClient({
  secretKey: about.secret_key,
  publishableKey: about.publishable_key,
  apiUrl: about.api_url,
  telemetry: { disabled: true },
});
const [alice, bob] = about.sessions;
const fresh = async (session, query = "") =>
  (await fetch(`${about.api_url}/_emulator/token?session=${session}${query}`)).text();

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

/** A helper of the emulator's. */
async function helper(method, path, body) {
  const init = { method, headers: { "content-type": "application/json" }, body: body && JSON.stringify(body) };
  const answer = await fetch(`${about.api_url}/_emulator${path}`, init);
  assert.ok(answer.ok, await answer.clone().text());
  return answer.json();
}

/** What an application sees of a session token. */
async function auth(token) {
  const request = new Request("https://app.example.com/", { headers: { Authorization: `Bearer ${token}` } });
  return clerk.authenticateRequest(request);
}

await check("session tokens of both versions say the same to an application", async () => {
  const place = `/organizations/${alice.organization_id}/memberships/${alice.user_id}`;
  const permissions = ["org:a:read", "org:a:write", "org:b:manage", "org:c:read", "org:c:manage"];
  await helper("PUT", place, { permissions });
  for (const version of [1, 2]) {
    const seen = (await auth(await fresh(alice.id, `&v=${version}`))).toAuth();
    assert.deepEqual([seen.orgId, seen.orgRole, seen.orgSlug], [alice.organization_id, "org:admin", "acme"]);
    assert.deepEqual([...seen.orgPermissions].sort(), [...permissions].sort(), `version ${version}`);
  }
  await helper("PUT", place, { permissions: ["org:reports:read", "org:reports:write", "org:teams:write"] });
});

await check("a pending session is signed out, and an impersonated one names its actor", async () => {
  const { id } = await helper("POST", "/sessions", { user_id: bob.user_id, status: "pending", tasks: ["choose-organization"] });
  const state = await auth(await fresh(id));
  assert.deepEqual([state.status, state.toAuth().userId], ["signed-in", null]);
  assert.equal((await clerk.sessions.getSession(id)).status, "pending");
  await helper("PATCH", `/sessions/${id}`, { status: "active", actor: { sub: "user_support" } });
  const seen = (await auth(await fresh(id))).toAuth();
  assert.deepEqual([seen.sessionId, seen.actor], [id, { sub: "user_support" }]);
  assert.deepEqual((await clerk.sessions.getSession(id)).actor, { sub: "user_support" });
});

await check("lists have pages", async () => {
  for (let made = 0; made < 3; made += 1) await clerk.sessions.createSession({ userId: bob.user_id });
  const first = await clerk.sessions.getSessionList({ userId: bob.user_id, limit: 2 });
  const second = await clerk.sessions.getSessionList({ userId: bob.user_id, limit: 2, offset: 2 });
  assert.ok(first.totalCount >= 4 && first.totalCount === second.totalCount);
  assert.equal(new Set([...first.data, ...second.data].map(({ id }) => id)).size, 4);
  assert.equal((await refusal(clerk.sessions.getSessionList({ userId: bob.user_id, limit: 501 }))).status, 422);
});

await check("a template has shortcodes and a key of its own", async () => {
  const claims = {
    role: "{{user.public_metadata.role || 'reader'}}",
    text: "{{user.first_name}} {{user.username}}",
    none: "{{user.nothing}}",
    list: ["{{user.unsafe_metadata}}", 7],
  };
  const own = { customSigningKey: true, signingAlgorithm: "HS256", signingKey: "only-for-tests" };
  const made = await clerk.jwtTemplates.create({ name: "own_key", claims, ...own });
  assert.deepEqual([made.customSigningKey, made.signingAlgorithm], [true, "HS256"]);
  const { jwt } = await clerk.sessions.getToken(bob.id, "own_key");
  const [head, payload, signature] = jwt.split(".");
  const { createHmac } = await import("node:crypto");
  assert.equal(createHmac("sha256", "only-for-tests").update(`${head}.${payload}`).digest("base64url"), signature);
  const { role, text, none, list } = part(jwt, 1);
  assert.deepEqual({ role, text, none, list }, { role: "reader", text: "Bob null", none: null, list: [{}, 7] });
  await clerk.jwtTemplates.delete(made.id);
  const reserved = await refusal(clerk.jwtTemplates.create({ name: "x", claims: { sub: "me" } }));
  assert.deepEqual([reserved.status, reserved.code], [400, "jwt_template_reserved_claim"]);
});

await check("a refresh without a handshake is 401", async () => {
  const params = { expired_token: "a", refresh_token: "b", request_origin: "c", request_headers: {} };
  assert.equal((await refusal(clerk.sessions.refreshSession(alice.id, params))).status, 401);
});

await check("versions of the API that do not exist are refused", async () => {
  const headers = { authorization: `Bearer ${about.secret_key}`, "Clerk-API-Version": "2026-05-12" };
  for (const [query, version] of [["", "2026-05-13"], ["?__clerk_api_version=2026-05-12", "2026-05-12"]]) {
    const answer = await fetch(`${about.api_url}/v1/jwks${query}`, { headers: { ...headers, "Clerk-API-Version": version } });
    assert.deepEqual([answer.status, (await answer.json()).errors[0].code], [400, "api_version_invalid"]);
  }
});

await check("scripted faults are what the SDK sees", async () => {
  const mint = () => clerk.sessions.getToken(alice.id, "plain");
  const fault = (body) => helper("POST", "/faults", { endpoint: "mint", times: 1, ...body });
  await fault({ status: 429, retry_after: 4 });
  const throttled = await refusal(mint());
  assert.deepEqual([throttled.status, throttled.code, throttled.error.retryAfter], [429, "too_many_requests", 4]);
  await fault({ status: 500 });
  assert.equal((await refusal(mint())).code, "internal_clerk_error");
  for (const body of [{ reset: true }, { malformed: "truncated" }, { malformed: "cut" }, { malformed: "empty" }]) {
    await fault(body);
    await assert.rejects(mint(), JSON.stringify(body));
  }
  await fault({ malformed: "no_jwt" });
  assert.equal((await mint()).jwt, undefined);
  assert.ok((await mint()).jwt);
  await helper("DELETE", "/faults");
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
