// Checks that count, and the description of a running emulator.
// A description is the line that `mintgate emulator --json` prints; `describe` starts one with MINTGATE_BIN, or takes
// it from EMULATOR (the line itself).
import { spawn } from "node:child_process";
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
