// Queries and mutations: who sees and changes what. Each of these was taken out once:
//   the condition of own_organization on app.notes: each sees its own rows, fails
//   `author = app.current_person()` in change_own and remove_own: each changes its own rows, fails
//   `inject` in mintgate.toml: nobody is anybody, and the first note is not written
//   anonymous added to own_organization, for whoever has no organization: no session sees nothing, fails
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { CREATE, DELETE, NOTES, UPDATE, ask, check, create, good, notes, until } from "./support.mjs";

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
/** A token of the caller's own making. */
function forged(header, claims, key) {
  const input = `${encoded(header)}.${encoded(claims)}`;
  return `${input}.${key === undefined ? "" : createHmac("sha256", key).update(input).digest("base64url")}`;
}

/** `variant` names the template that is in use. */
export async function requests({ gateway, postgraphile, emulator, postgres }, template) {
  const { url } = gateway;
  const [ann, abe, gil] = await Promise.all(["sess_ann", "sess_abe", "sess_gil"].map((id) => emulator.token(id, 600)));
  const rows = async () => (await postgres.owner("select id, org_id, author, body from app.notes order by id")).split("\n");
  const hers = await create(url, ann, "of Acme, by Ann");
  const his = await create(url, abe, "of Acme, by Abe");
  const other = await create(url, gil, "of Globex");

  await check("two organizations: each sees its own rows and no other", async () => {
    assert.deepEqual([hers.orgId, hers.author, other.orgId, other.author], ["org_acme", "user_ann", "org_globex", "user_gil"]);
    for (const [token, org, expected] of [[ann, "org_acme", [hers, his]], [abe, "org_acme", [hers, his]], [gil, "org_globex", [other]]]) {
      const seen = await notes(url, token);
      for (const note of expected) assert.ok(seen.some(({ rowId }) => rowId === note.rowId), `${org} misses ${note.body}`);
      assert.deepEqual([...new Set(seen.map(({ orgId }) => orgId))], [org]);
    }
    assert.ok((await rows()).length >= 3, "the rows are there: only the policies hide them");
  });

  await check("two organizations: each changes its own rows and no other", async () => {
    const before = await rows();
    for (const [token, note] of [[gil, hers], [abe, hers], [ann, other]]) {
      for (const [query, variables] of [[UPDATE, { id: note.rowId, body: "taken" }], [DELETE, { id: note.rowId }]]) {
        const { status, data, text } = await ask(url, token, query, variables);
        // It was tried, and no row was found.
        assert.ok(status === 200 && !(data?.updateNoteByRowId?.note ?? data?.deleteNoteByRowId), `${note.body}: ${text}`);
      }
    }
    const named = "mutation { createNote(input: { note: { body: \"x\", orgId: \"org_globex\" } }) { note { rowId } } }";
    assert.ok((await ask(url, ann, named)).errors, "an organization of the caller's choice");
    assert.deepEqual(await rows(), before, "nothing has changed");
    for (const [token, note, body] of [[ann, his, "edited by the admin"], [gil, other, "edited by its author"]]) {
      assert.equal((await good(url, token, UPDATE, { id: note.rowId, body })).updateNoteByRowId.note.body, body);
    }
    assert.equal((await rows()).filter((row) => /edited by (the admin|its author)/.test(row)).length, 2);
  });

  await check("no session sees nothing and changes nothing", async () => {
    const before = await rows();
    assert.deepEqual(await notes(url, undefined), []);
    assert.ok((await ask(url, undefined, CREATE, { body: "x" })).errors);
    assert.deepEqual(await rows(), before);
  });

  await check("a spoofed authorization is refused, by mintgate and behind it", async () => {
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: emulator.about.issuer, aud: "postgraphile", sub: "user_ann", org_id: "org_acme", org_role: "org:admin", iat: now, exp: now + 60 };
    const session = encoded({ alg: "RS256", typ: "JWT", cat: "cl_B7d4PD111AAA", kid: emulator.about.kid });
    // The real thing, as Clerk mints it: it is no session token.
    const { jwt } = await (await emulator.api("POST", `/sessions/sess_ann/tokens/${template}`)).json();
    const forgeries = [
      forged({ alg: "HS256", typ: "JWT" }, claims, "guessed"),
      forged({ alg: "HS256", typ: "JWT" }, claims, emulator.about.jwt_key),
      forged({ alg: "none", typ: "JWT" }, claims),
      `${session}.${encoded({ ...claims, sid: "sess_ann" })}.${ann.split(".")[2]}`,
    ];
    for (const token of [...forgeries, jwt]) {
      const { status, code } = await ask(url, token, NOTES);
      assert.deepEqual([status, code], [401, "session-invalid"]);
    }
    // PostGraphile verifies by itself: who gets past the gateway has won nothing.
    for (const token of [...forgeries, ann]) assert.equal((await ask(`${postgraphile.url}/graphql`, token, NOTES)).status, 401);
    assert.equal((await ask(`${postgraphile.url}/graphql`, jwt, NOTES)).status, 200);
  });

  await check("role headers, and a header that Connection would take away, change nothing", async () => {
    const spoofed = { "x-hasura-role": "admin", "x-hasura-org-id": "org_acme", "x-role": "admin", "x-user-id": "user_ann" };
    assert.deepEqual((await ask(url, undefined, NOTES, {}, spoofed)).data, { allNotes: { nodes: [] } });
    const seen = (await ask(url, gil, NOTES, {}, spoofed)).data.allNotes.nodes;
    assert.ok(seen.length > 0 && seen.every(({ orgId }) => orgId === "org_globex"));
    const cookie = { cookie: `__session=${ann}; __client_uat=1` };
    assert.equal((await ask(url, undefined, NOTES, {}, cookie)).code, "origin-forbidden");
  });

  await check("a switched organization takes effect with the next session token", async () => {
    await emulator.helper("PATCH", "/sessions/sess_ann", { active_organization_id: "org_globex" });
    try {
      const next = await emulator.token("sess_ann");
      assert.deepEqual([...new Set((await notes(url, next)).map(({ orgId }) => orgId))], ["org_globex"]);
      // She is an admin of Acme, not of Globex.
      assert.equal((await good(url, next, UPDATE, { id: other.rowId, body: "taken" })).updateNoteByRowId.note, null);
      // The session token that she had says Acme for as long as it lives; she never gets a mixture.
      assert.deepEqual([...new Set((await notes(url, ann)).map(({ orgId }) => orgId))], ["org_acme"]);
    } finally {
      await emulator.helper("PATCH", "/sessions/sess_ann", { active_organization_id: "org_acme" });
    }
    assert.deepEqual([...new Set((await notes(url, await emulator.token("sess_ann"))).map(({ orgId }) => orgId))], ["org_acme"]);
  });

  await check("a revoked session stops, although its token is good for ten minutes", async () => {
    const { id } = await (await emulator.helper("POST", "/sessions", { user_id: "user_abe", active_organization_id: "org_acme" })).json();
    const held = await emulator.token(id, 600);
    assert.ok((await notes(url, held)).length > 0);
    await emulator.api("POST", `/sessions/${id}/revoke`);
    const refused = await until("it is refused", async () => {
      const answer = await ask(url, held, NOTES);
      return answer.status === 401 && answer;
    });
    assert.equal(refused.code, "session-revoked");
    assert.ok((await notes(url, abe)).length > 0, "the user's other session goes on");
  });
}
