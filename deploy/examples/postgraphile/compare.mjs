// Two back ends with the same route, side by side in one run: one mints a token for each request with Clerk's SDK, the other
// calls out through mintgate. The issuer answers a mint in 150 ms and has the rate limit of a production instance.
//   node compare.mjs [--seconds N] [--rounds N] [--write]      --write: into README.md and compare/plot.svg
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { create, pause } from "./checks/support.mjs";
import { plot } from "./compare/plot.mjs";
import { ORIGIN, VARIANTS, startAll, startBackend } from "./stack.mjs";

const { values: options } = parseArgs({
  options: { seconds: { type: "string", default: "12" }, rounds: { type: "string", default: "3" }, write: { type: "boolean" } },
});
const [SECONDS, ROUNDS] = [Number(options.seconds), Number(options.rounds)];
const LATENCY = 150;
const SESSIONS = 30;
/** Callers at a time: what the issuer's 100 calls a second carry at this latency, and what they do not. */
const CALLERS = [10, 40];
const BACKENDS = { "backend-clerk": "`getToken` of `@clerk/backend`", "backend-mintgate": "through mintgate" };
const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** Calls `url` for so long, so many at a time, each caller with its own sessions in turn. */
async function load(url, tokens, callers, seconds) {
  const [times, end] = [[], performance.now() + seconds * 1000];
  let failed = 0;
  const caller = async (number) => {
    for (let turn = number; performance.now() < end; turn += callers) {
      const began = performance.now();
      const answer = await fetch(`${url}/notes`, { headers: { authorization: `Bearer ${tokens[turn % tokens.length]}` } });
      const rows = await answer.json();
      if (answer.status !== 200) failed += 1;
      else {
        assert.ok(rows.length > 0 && rows.every(({ orgId }) => orgId === "org_acme"));
        times.push(performance.now() - began);
      }
    }
  };
  await Promise.all(Array.from({ length: callers }, (_, number) => caller(number)));
  return { times, failed };
}

const at = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
const lines = (name) => readFileSync(here(`compare/${name}.mjs`), "utf8").split("\n").filter((line) => line.trim() && !line.startsWith("//")).length;

const parts = await startAll("hs256", { flags: ["--secret-key", "sk_live_comparison"] });
const stops = [parts.stop];
try {
  const { emulator, gateway, directory } = parts;
  const { about } = emulator;
  const { template } = VARIANTS.hs256;
  const settings = { APP_ORIGIN: ORIGIN, CLERK_API_URL: about.api_url, CLERK_PUBLISHABLE_KEY: about.publishable_key, CLERK_SECRET_KEY: about.secret_key };
  const urls = {};
  for (const [name, graphql] of [["backend-clerk", `${parts.postgraphile.url}/graphql`], ["backend-mintgate", gateway.url]]) {
    const backend = await startBackend(directory, name, { ...settings, TEMPLATE: template, GRAPHQL_URL: graphql });
    stops.unshift(backend.stop);
    urls[name] = backend.url;
  }
  await create(gateway.url, await emulator.token("sess_ann"), "seen by all of Acme");
  await emulator.helper("POST", "/faults", { endpoint: "template_token", delay_ms: LATENCY });

  /** What was asked of the issuer for tokens, whatever it answered. */
  const asked = async () => {
    const { calls } = await (await emulator.helper("GET", "/state")).json();
    return calls.mints + calls.throttled;
  };
  const measured = [];
  for (const callers of CALLERS) {
    const results = Object.fromEntries(Object.keys(BACKENDS).map((name) => [name, { times: [], failed: 0, calls: 0 }]));
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const name of Object.keys(BACKENDS)) {
        // Sessions that nobody has had a token for: what mintgate spends on them counts.
        const sessions = await Promise.all(
          Array.from({ length: SESSIONS }, async () =>
            (await (await emulator.helper("POST", "/sessions", { user_id: "user_abe", active_organization_id: "org_acme" })).json()).id),
        );
        const tokens = await Promise.all(sessions.map((id) => emulator.token(id)));
        const before = await asked();
        const { times, failed } = await load(urls[name], tokens, callers, SECONDS);
        results[name].times.push(...times);
        results[name].failed += failed;
        results[name].calls += (await asked()) - before;
        // The issuer's window is empty again for whoever comes next.
        if (name === "backend-clerk") await pause(10000);
      }
    }
    for (const [name, { times, failed, calls }] of Object.entries(results)) {
      times.sort((a, b) => a - b);
      const rate = times.length / (SECONDS * ROUNDS);
      measured.push({ name, what: BACKENDS[name], callers, rate, p50: at(times, 0.5), p99: at(times, 0.99), served: times.length, failed, calls });
      const { p50, p99 } = measured.at(-1);
      console.log(`${callers} callers, ${name}: ${rate.toFixed(1)} requests/s, p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, ${failed} of ${times.length + failed} failed, ${calls} calls of the issuer`);
    }
  }

  const head = "| callers | back end | requests/s | p50, ms | p99, ms | failed | calls of the issuer | lines |\n|---:|---|---:|---:|---:|---:|---:|---:|";
  const rows = measured.map(({ name, what, callers, rate, p50, p99, served, failed, calls }) =>
    `| ${callers} | ${what} | ${rate.toFixed(0)} | ${p50.toFixed(1)} | ${p99.toFixed(1)} | ${failed} of ${served + failed} | ${calls} | ${lines(name)} |`);
  const table = [head, ...rows].join("\n");
  const said = `${ROUNDS} rounds of ${SECONDS} s for each in turn, ${SESSIONS} new sessions a round, on ${cpus().length} cores that load, back ends, gateway, PostGraphile and PostgreSQL share.`;
  console.log(`\n${table}\n\n${said}`);
  if (options.write) {
    const page = readFileSync(here("README.md"), "utf8");
    const [before, after] = [page.split("<!-- compare -->")[0], page.split("<!-- /compare -->")[1]];
    writeFileSync(here("README.md"), `${before}<!-- compare -->\n${table}\n\n${said}\n<!-- /compare -->${after}`);
    writeFileSync(here("compare/plot.svg"), plot(measured));
  }

  // What holds on any machine, however busy it is.
  const [sdk] = measured;
  assert.equal(sdk.calls, sdk.served + sdk.failed, "one call of the issuer for each request");
  assert.equal(sdk.failed, 0, "at ten callers the issuer's limit is not met");
  for (const { name, failed, calls } of measured.filter(({ name }) => name === "backend-mintgate")) {
    assert.equal(failed, 0, `${name}: no failed request`);
    assert.ok(calls <= SESSIONS * ROUNDS, `${name}: one call of the issuer for each session, not ${calls}`);
  }
  assert.ok(sdk.p50 >= LATENCY, "the SDK waits for the issuer at each request");
} finally {
  for (const stop of stops) await stop();
}
