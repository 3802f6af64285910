// Subscriptions by the stock client of graphql-transport-ws, over sockets that end with their tokens. Each of these was taken
// out once:
//   the condition of own_organization on app.note_events: each gets the events of its own organization, fails
//   mintgate's 3000 (it sent 4401): the client gives up at the first expiry
//   the cursor, at the server: what happened between two connections is missed
//   the cursor, at the client: events come twice
//   the order by the id's number (it was by its text): one who was away for long never gets all
import assert from "node:assert/strict";
import { createClient } from "graphql-ws";
import { WebSocket } from "ws";
import { check, create, pause, until } from "./support.mjs";

const QUERY = "subscription ($after: BigInt) { noteEvents(after: $after) { id noteId kind body } }";

/** A subscriber: what it has seen, how its sockets were closed. `token`: a fresh session token, for each connection. */
export function subscriber(socket, token, after, options = {}) {
  const state = { seen: [], closes: [], connected: 0, error: undefined, done: false };
  let bearer;
  const client = createClient({
    // For each connection a fresh session token; a browser would send its cookie.
    url: async () => ((bearer = await token()), socket),
    webSocketImpl: class extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, { headers: bearer ? { authorization: `Bearer ${bearer}` } : {} });
        // A refused handshake is an event for the client, not an exception.
        this.on("error", () => {});
      }
    },
    retryWait: () => pause(200),
    on: { connected: () => (state.connected += 1), closed: ({ code, reason }) => state.closes.push(`${code} ${reason}`) },
    ...options,
  });
  let last = after;
  const variables = {
    // Read each time that the client subscribes: after a reconnection it goes on behind what it has.
    get after() {
      return last;
    },
  };
  client.subscribe(
    { query: QUERY, variables },
    {
      next({ data, errors }) {
        if (errors) return void (state.error = errors);
        last = data.noteEvents.id;
        state.seen.push(data.noteEvents);
      },
      error: (error) => (state.error = error),
      complete: () => (state.done = true),
    },
  );
  return { state, end: () => client.dispose() };
}

/** `life`: for how many seconds the minted tokens live. */
export async function subscriptions({ gateway, emulator, postgres }, template, life) {
  const { url, socket } = gateway;
  const token = (session) => () => emulator.token(session);
  const happened = async (org, after) => {
    const told = await postgres.owner(`select id from app.note_events where org_id = '${org}' and id > ${after} order by id`);
    return told === "" ? [] : told.split("\n");
  };
  const newest = async () => (await postgres.owner("select coalesce(max(id), 0) from app.note_events")) || "0";
  const ids = ({ state }) => state.seen.map(({ id }) => id);

  await check("each gets the events of its own organization", async () => {
    const after = await newest();
    // What a client says in connection_init is its own word: here a good token of somebody else's.
    const { jwt } = await (await emulator.api("POST", `/sessions/sess_ann/tokens/${template}`)).json();
    const lies = { connectionParams: { authorization: `Bearer ${jwt}`, "x-hasura-org-id": "org_acme" } };
    const [acme, globex] = [subscriber(socket, token("sess_abe"), after), subscriber(socket, token("sess_gil"), after, lies)];
    await until("both are connected", () => acme.state.connected && globex.state.connected);
    const [ann, gil] = [await emulator.token("sess_ann"), await emulator.token("sess_gil")];
    for (let round = 0; round < 3; round += 1) {
      await create(url, ann, `for Acme ${round}`);
      await create(url, gil, `for Globex ${round}`);
    }
    await until("all have come", () => acme.state.seen.length >= 3 && globex.state.seen.length >= 3);
    assert.deepEqual(ids(acme), await happened("org_acme", after));
    assert.deepEqual(ids(globex), await happened("org_globex", after));
    assert.deepEqual(globex.state.seen.map(({ body }) => body), [0, 1, 2].map((round) => `for Globex ${round}`));
    for (const { end } of [acme, globex]) await end();
  });

  await check("who has no session gets an error and no event", async () => {
    const nobody = subscriber(socket, async () => undefined, "0");
    await until("it is told", () => nobody.state.error);
    assert.deepEqual(nobody.state.seen, []);
    await nobody.end();
  });

  await check("expiry ends it, the client comes back with a new token, and nothing is missed or comes twice", async () => {
    const after = await newest();
    const both = [subscriber(socket, token("sess_abe"), after), subscriber(socket, token("sess_gil"), after)];
    const enough = () => both.every(({ state }) => state.closes.length >= 2 && state.connected >= 3);
    for (const end = Date.now() + (3 * life + 60) * 1000; !enough(); await pause(100)) {
      for (const { state } of both) assert.ok(!state.error && !state.done, `it has given up: ${JSON.stringify(state.closes)}`);
      assert.ok(Date.now() < end, `never: two expiries; ${JSON.stringify(both.map(({ state }) => state.closes))}`);
      const [ann, gil] = [await emulator.token("sess_ann"), await emulator.token("sess_gil")];
      await Promise.all([create(url, ann, "Acme"), create(url, gil, "Globex"), create(url, ann, "Acme too")]);
    }
    const [acme, globex] = [await happened("org_acme", after), await happened("org_globex", after)];
    await until("the last ones have come", () => both[0].state.seen.length >= acme.length && both[1].state.seen.length >= globex.length);
    assert.deepEqual([ids(both[0]), ids(both[1])], [acme, globex]);
    for (const { state } of both) assert.deepEqual([...new Set(state.closes)], ["3000 token expired"]);
    for (const { end } of both) await end();
    return `${acme.length + globex.length} events over ${both[0].state.closes.length + both[1].state.closes.length} reconnections`;
  });

  await check("one who was away for long gets all of it, in its order", async () => {
    const all = await happened("org_acme", "0");
    // More than a look of the server's brings, and ids of one, two, three digits.
    assert.ok(all.length > 100 && all[0].length === 1 && all.at(-1).length > 2, `too few events: ${all.length}`);
    const away = subscriber(socket, token("sess_abe"), "0");
    await until("all have come", () => away.state.seen.length >= all.length);
    assert.deepEqual(ids(away), all);
    await away.end();
    return `${all.length} events`;
  });

  await check("after a switch the next connection has the new organization, and none of the old one's events", async () => {
    const after = await newest();
    const moving = subscriber(socket, token("sess_abe"), after);
    await until("it is connected", () => moving.state.connected);
    const [ann, gil] = [await emulator.token("sess_ann"), await emulator.token("sess_gil")];
    await create(url, ann, "before");
    await until("it has come", () => moving.state.seen.length === 1);
    await emulator.helper("PUT", "/organizations/org_globex/memberships/user_abe", { role: "org:member" });
    await emulator.helper("PATCH", "/sessions/sess_abe", { active_organization_id: "org_globex" });
    await until("its token has expired", () => moving.state.connected >= 2);
    await create(url, ann, "unseen");
    await create(url, gil, "after");
    await until("the new organization's event has come", () => moving.state.seen.some(({ body }) => body === "after"));
    assert.deepEqual(moving.state.seen.map(({ body }) => body), ["before", "after"]);
    await moving.end();
    await emulator.helper("PATCH", "/sessions/sess_abe", { active_organization_id: "org_acme" });
  });

  await check("a revocation ends it at once, and it does not come back", async () => {
    const { id } = await (await emulator.helper("POST", "/sessions", { user_id: "user_abe", active_organization_id: "org_acme" })).json();
    const held = await emulator.token(id, 600);
    const revoked = subscriber(socket, async () => held, await newest(), { retryAttempts: 2 });
    await until("it is connected", () => revoked.state.connected);
    await emulator.api("POST", `/sessions/${id}/revoke`);
    await until("it is closed", () => revoked.state.closes.length > 0);
    assert.equal(revoked.state.closes[0], "4403 session revoked");
    await create(url, await emulator.token("sess_ann"), "behind its back");
    await until("it gives up", () => revoked.state.error);
    assert.deepEqual([revoked.state.seen, revoked.state.connected], [[], 1]);
  });
}
