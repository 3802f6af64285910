// Checks that count, and the description of a running emulator.
// A description is the line that `mintgate emulator --json` prints; `describe` starts one with MINTGATE_BIN, or takes
// it from EMULATOR (the line itself).
// `tokenApi` puts a gateway before it.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

let failed = 0;
let passed = 0;

/** Runs one check; a throw is a failure. */
export async function check(name, run) {
  try {
    await run();
    passed += 1;
  } catch (error) {
    failed += 1;
    console.error(`  FAILED ${name}\n    ${error?.message ?? error}`);
  }
}

/** Header (0) or claims (1) of a token. */
export const part = (jwt, index) => JSON.parse(Buffer.from(jwt.split(".")[index], "base64url"));

/** The error of a call of the SDK's that must fail. */
export async function refusal(call) {
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

/** Prints the sum and ends the process. */
export function finish(what) {
  console.log(`  ${what}: ${passed} passed, ${failed} failed`);
  process.exit(failed === 0 && passed > 0 ? 0 : 1);
}

/** The running emulator and how to stop it. */
export async function describe() {
  if (process.env.EMULATOR) return { about: JSON.parse(process.env.EMULATOR), stop() {} };
  const binary = process.env.MINTGATE_BIN;
  if (!binary) throw new Error("set MINTGATE_BIN to the binary, or EMULATOR to the line of `mintgate emulator --json`");
  const child = spawn(binary, ["emulator", "--json", "--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "inherit"] });
  const stop = () => child.kill();
  process.on("exit", stop);
  for await (const line of createInterface({ input: child.stdout })) return { about: JSON.parse(line), stop };
  throw new Error("the emulator ended without a line");
}

/** A gateway whose token API stands before the running emulator, and how to stop it. */
export async function tokenApi(about, callers = "") {
  const binary = process.env.MINTGATE_BIN;
  if (!binary) throw new Error("set MINTGATE_BIN to the binary");
  const directory = await mkdtemp(join(tmpdir(), "mintgate-sdk-"));
  const config = join(directory, "mintgate.toml");
  await writeFile(
    config,
    `[clerk]\nsecret_key = { env = "CLERK_SECRET_KEY" }\napi_url = "${about.api_url}"\n` +
      `[server]\nlisten = ["127.0.0.1:0"]\n[log]\nformat = "json"\n` +
      `[token_api]\nlisten = "127.0.0.1:0"\ncallers = [${callers}]\n`,
  );
  const env = { ...process.env, CLERK_SECRET_KEY: about.secret_key, CALLER_TOKEN: "a-callers-own-token" };
  const child = spawn(binary, ["run", "--config", config], { stdio: ["ignore", "ignore", "pipe"], env });
  const stop = () => child.kill();
  process.on("exit", stop);
  const lines = createInterface({ input: child.stderr });
  const address = await new Promise((found, failed) => {
    lines.on("line", (line) => {
      const [, where] = line.match(/"message":"token API listening.*?"address":"([^"]+)"/) ?? [];
      if (where) found(where);
    });
    lines.on("close", () => failed(new Error("the gateway ended")));
  });
  await rm(directory, { recursive: true });
  return { url: `http://${address}`, stop };
}
