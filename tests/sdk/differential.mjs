// Judges the cases of `cases.mjs` with @clerk/backend. Reads the file named by the argument, or standard input; prints
// one verdict for each case as a JSON line (the format is described in cases.mjs).
//
// It fails when a case says that mintgate is stricter than the SDK and the SDK refuses the token as well: such a note
// has no use, and would hide a change of the SDK.
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { createClerkClient, verifyToken } from "@clerk/backend";

const lines = readFileSync(process.argv[2] ?? 0, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
const [instance, ...cases] = lines;
if (instance.type !== "instance") throw new Error("the first line is not the instance");

// The SDK has no option for the time: it is given a clock that stands at the case's. Both readings are replaced.
const RealDate = Date;
let now = instance.now_ms;
globalThis.Date = class extends RealDate {
  constructor(...args) {
    super(...(args.length === 0 ? [now] : args));
  }
  static now() {
    return now;
  }
};

const SECRET = { true: "sk_test_differential", false: "sk_live_differential" };
const server = createServer((request, response) => {
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify(request.url === "/v1/jwks" ? instance.jwks : {}));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const apiUrl = `http://127.0.0.1:${server.address().port}`;

async function judge({ token, via, headers, options }) {
  const secretKey = SECRET[options.development];
  const rules = {
    ...(options.keys === "jwt_key" ? { jwtKey: instance.jwt_key } : {}),
    ...(options.issuer ? { issuer: options.issuer } : {}),
    ...(options.audience.length ? { audience: options.audience } : {}),
    ...(options.authorized_parties.length ? { authorizedParties: options.authorized_parties } : {}),
  };
  now = options.now_ms;
  const clerk = createClerkClient({
    secretKey,
    publishableKey: options.development ? instance.development.publishable_key : instance.publishable_key,
    apiUrl,
    telemetry: { disabled: true },
    ...rules,
  });
  const verdict = {};
  try {
    const state = await clerk.authenticateRequest(new Request("https://app.differential.example/", { headers }), rules);
    const auth = state.toAuth();
    verdict.accepted = Boolean(auth?.isAuthenticated);
    verdict.reason = verdict.accepted ? null : (state.reason ?? (auth ? "signed-out" : state.status));
  } catch (error) {
    verdict.accepted = false;
    verdict.reason = `threw ${error.name}`;
  }
  if (via === "header") {
    try {
      await verifyToken(token, { secretKey, apiUrl, ...rules });
      verdict.verify_token = { accepted: true, reason: null };
    } catch (error) {
      verdict.verify_token = { accepted: false, reason: error.reason ?? `threw ${error.name}` };
    }
  }
  return verdict;
}

// What the SDK has to say about single cookies is not of interest here.
console.warn = console.error = console.log = () => {};

const idle = [];
for (const one of cases) {
  const verdict = await judge(one);
  if (one.ours === "refuse" && !verdict.accepted) idle.push(`${one.name}: ${verdict.reason}`);
  process.stdout.write(`${JSON.stringify({ name: one.name, ...verdict })}\n`);
}
server.close();
server.closeAllConnections();
if (idle.length > 0) {
  process.stderr.write(`the SDK refuses these as well, so nothing is stricter about them:\n  ${idle.join("\n  ")}\n`);
  process.exitCode = 1;
}
