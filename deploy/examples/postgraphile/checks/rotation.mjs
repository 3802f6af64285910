// New keys in the middle of traffic: no request fails. Without `retry_rejected` in mintgate.toml requests fail when the old
// key is gone.
import assert from "node:assert/strict";
import { CREATE, NOTES, ask, check, create, notes, pause, until } from "./support.mjs";

const ONE = "{ allNotes(first: 1) { nodes { rowId } } }";
const WRITTEN = "during a rotation";
const SESSIONS = ["sess_ann", "sess_abe", "sess_gil"];

/** Callers that ask one after the other, each with a session token not older than two seconds, until they are told. */
function traffic({ url, emulator, callers = 12 }) {
  const told = { stop: false, requests: 0, written: 0, failed: [] };
  const held = new Map();
  const fresh = async (session) => {
    const now = Date.now();
    if (!(held.get(session)?.since > now - 2000)) held.set(session, { since: now, token: emulator.token(session) });
    return held.get(session).token;
  };
  const caller = async (number) => {
    const session = SESSIONS[number % SESSIONS.length];
    while (!told.stop) {
      // Now and then a mutation: a request that is sent once more must not be done twice.
      const writes = (told.requests += 1) % 5 === 0;
      const what = writes ? [CREATE, { body: WRITTEN }] : [ONE];
      const answer = await ask(url, await fresh(session), ...what).catch((error) => ({ text: error.message }));
      told.written += writes;
      const seen = writes ? answer.data?.createNote : answer.data?.allNotes.nodes.length;
      if (answer.status !== 200 || answer.errors || !seen) told.failed.push(`${answer.status} ${answer.text}`.slice(0, 200));
      await pause(10);
    }
  };
  const all = Promise.all(Array.from({ length: callers }, (_, number) => caller(number)));
  /** Resolves when so many more requests have been made. */
  const more = (count) => until("more requests", ((mark) => () => told.requests >= mark + count)(told.requests));
  return { told, more, end: () => ((told.stop = true), all) };
}

/** Holds what traffic was told to what must be. */
async function judge({ requests, written, failed }, postgres) {
  assert.deepEqual(failed.slice(0, 3), [], `${failed.length} of ${requests} failed`);
  const there = await postgres.owner(`select count(*) from app.notes where body = '${WRITTEN}'`);
  assert.equal(Number(there), written, "each mutation was done once");
  return `${requests} requests of 12 callers, ${written} of them mutations, 0 failed`;
}

async function filled({ gateway, emulator }) {
  for (const session of SESSIONS) await create(gateway.url, await emulator.token(session), `of ${session}`);
}

/** The issuer's key signs session tokens and the template's: both are rotated at once, and the old one leaves the JWKS. */
export async function issuersKey({ gateway, postgraphile, emulator, postgres }) {
  await filled({ gateway, emulator });
  await check("the issuer rotates its key and withdraws the old one: no request fails", async () => {
    const under = traffic({ url: gateway.url, emulator });
    try {
      await under.more(100);
      const { jwt: old } = await (await emulator.api("POST", `/sessions/sess_ann/tokens/postgraphile_rs256`, { expires_in_seconds: 600 })).json();
      const { keys } = await (await emulator.helper("POST", "/keys")).json();
      assert.equal(keys.length, 2);
      // Longer than the age from which mintgate replaces a token that is refused.
      await pause(11000);
      await emulator.helper("DELETE", `/keys/${keys[1]}`);
      await until("PostGraphile takes the old key no more", async () => (await ask(`${postgraphile.url}/graphql`, old, NOTES)).status === 401);
      await under.more(200);
    } finally {
      await under.end();
    }
    const sum = await judge(under.told, postgres);
    // More than the one refusal that this check has asked for itself: tokens of the old key were in use, and replaced.
    const refused = postgraphile.text().split("\n").filter((line) => line.startsWith("refused:")).length;
    assert.ok(refused > 1, "no token of the old key was in use");
    return `${sum}; ${refused - 1} answered after a new mint`;
  });
}

/** The template's own key, which PostGraphile shares: it knows the new one before the issuer signs with it. */
export async function sharedKey({ gateway, emulator, postgres }, next) {
  await filled({ gateway, emulator });
  await check("the template's shared key is rotated: no request fails", async () => {
    const under = traffic({ url: gateway.url, emulator });
    try {
      await under.more(100);
      const { data } = await (await emulator.api("GET", "/jwt_templates?limit=10&offset=0&paginated=true")).json();
      const template = data.find(({ name }) => name === "postgraphile");
      const { id, name, claims } = template;
      await emulator.api("PATCH", `/jwt_templates/${id}`, { name, claims, signing_key: next });
      // A session that is new has a token of the new key at once.
      const { id: session } = await (await emulator.helper("POST", "/sessions", { user_id: "user_gil", active_organization_id: "org_globex" })).json();
      assert.ok((await notes(gateway.url, await emulator.token(session))).length > 0);
      await under.more(200);
    } finally {
      await under.end();
    }
    return judge(under.told, postgres);
  });
}
