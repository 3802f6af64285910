// What the checks have in common: a line for each, the first failure ends all; calls through the gateway; bounded waits.
import assert from "node:assert/strict";

/** Longer than anything that a busy machine needs; nothing waits for it but a check that fails. */
const PATIENCE = 90000;
export const pause = (milliseconds) => new Promise((over) => setTimeout(over, milliseconds));

/** Runs one check. It may return a figure to print. */
export async function check(name, run) {
  const figure = await run().catch((cause) => {
    throw new Error(`FAILED ${name}\n    ${cause.message}`, { cause });
  });
  console.log(`  ok  ${name}${figure === undefined ? "" : `: ${figure}`}`);
}

/** The first value that is there in time. */
export async function until(what, find) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await pause(50)) {
    const found = await find();
    if (found) return found;
  }
  return assert.fail(`never: ${what}`);
}

/** A GraphQL call: `url` is the gateway's, or PostGraphile's own. */
export async function ask(url, token, query, variables, headers = {}) {
  const bearer = token ? { authorization: `Bearer ${token}` } : {};
  const init = { method: "POST", headers: { "content-type": "application/json", ...bearer, ...headers } };
  const answer = await fetch(url, { ...init, body: JSON.stringify({ query, variables }) });
  const text = await answer.text();
  const { data, errors } = text.startsWith("{") ? JSON.parse(text) : {};
  return { status: answer.status, code: answer.headers.get("x-mintgate-error"), data, errors, text };
}

/** The data of a call that must go well. */
export async function good(...call) {
  const answer = await ask(...call);
  assert.ok(answer.status === 200 && !answer.errors, `${answer.status} ${answer.text}`);
  return answer.data;
}

export const CREATE = "mutation ($body: String!) { createNote(input: { note: { body: $body } }) { note { rowId orgId author body } } }";
export const NOTES = "{ allNotes { nodes { rowId orgId author body } } }";
export const UPDATE =
  "mutation ($id: BigInt!, $body: String!) { updateNoteByRowId(input: { rowId: $id, notePatch: { body: $body } }) { note { body } } }";
export const DELETE = "mutation ($id: BigInt!) { deleteNoteByRowId(input: { rowId: $id }) { note { rowId } } }";

export const create = async (url, token, body) => (await good(url, token, CREATE, { body })).createNote.note;
export const notes = async (url, token) => (await good(url, token, NOTES)).allNotes.nodes;
