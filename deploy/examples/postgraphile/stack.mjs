// What the example consists of, each part startable alone. A part is `{ url or the like, log, stop() }`: it listens on a
// port (or a socket) that nobody had to choose, writes its log into `directory`, and is gone once `stop()` has resolved.
import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const secret = () => randomBytes(24).toString("hex");
/** Longer than anything that a busy machine needs. */
const PATIENCE = 60000;
export const ORIGIN = "https://app.example.com";
export const BINARY = process.env.MINTGATE_BIN ?? "mintgate";

/** How PostGraphile verifies, and the template that fits it. */
export const VARIANTS = {
  hs256: { template: "postgraphile", verify: ({ key }) => ({ PGJWT_KEYS: key }) },
  rs256: { template: "postgraphile_rs256", verify: ({ about }) => ({ JWKS_URL: about.jwks_url }) },
  hasura: { template: "hasura", verify: ({ about }) => ({ JWKS_URL: about.jwks_url }) },
};

/** A directory that is removed by its `stop()`. */
export function workspace() {
  const path = mkdtempSync(join(tmpdir(), "mintgate-pg-"));
  // PostgreSQL runs as another user when we are root.
  chmodSync(path, 0o755);
  return { path, stop: () => rmSync(path, { recursive: true, force: true }) };
}

/** A port that was free a moment ago, for what has to be known to others before it listens. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** A process with its output in a file; `line` finds what its log says. */
function start(name, directory, command, flags, environment) {
  const log = join(directory, `${name}.log`);
  const into = openSync(log, "w");
  const child = spawn(command, flags, { stdio: ["ignore", into, into], env: { ...process.env, ...environment } });
  closeSync(into);
  let over;
  const ended = new Promise((resolve) => {
    const end = (how) => resolve((over = how));
    child.once("error", (error) => end(error.message));
    child.once("exit", (code, signal) => end(signal ?? `status ${code}`));
  });
  // Whatever becomes of us, it does not stay.
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  return {
    child,
    log,
    text: () => readFileSync(log, "utf8"),
    async line(find) {
      for (const end = Date.now() + PATIENCE; Date.now() < end; await new Promise((next) => setTimeout(next, 20))) {
        for (const line of this.text().split("\n")) {
          const found = find(line);
          if (found) return found;
        }
        if (over) throw new Error(`${name} has ended (${over}):\n${this.text()}`);
      }
      throw new Error(`${name} does not say that it listens:\n${this.text()}`);
    },
    async stop(signal = "SIGTERM") {
      const late = setTimeout(kill, 10000);
      if (!over) child.kill(signal);
      await ended;
      clearTimeout(late);
      process.off("exit", kill);
    },
  };
}

/** A line of JSON, else nothing. */
function json(line) {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** PostgreSQL on a Unix socket with the schema; `url` is for PostGraphile, `owner` for who looks behind the policies. */
export async function startPostgres(directory) {
  const path = ["/usr/lib/postgresql", "/usr/pgsql"].flatMap((root) => ["18", "17", "16", "15", "14"].map((v) => `${root}/${v}/bin`));
  const PATH = [process.env.PATH, ...path].join(delimiter);
  // PostgreSQL does not run as root.
  const root = process.getuid?.() === 0;
  const [home, as] = [join(directory, "postgres"), root ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] : []];
  mkdirSync(home);
  const user = { HOME: home, PATH, LC_ALL: "C" };
  const execute = async (command, ...flags) => {
    const [first, ...rest] = [...as, command, ...flags];
    return run(first, rest, { env: { ...process.env, ...user }, cwd: home });
  };
  if (root) await run("chown", ["postgres:", home]);
  const password = secret();
  const data = join(home, "data");
  await execute("initdb", "--no-sync", "--encoding=UTF8", "--auth-local=peer", "--username=postgres", "--pgdata", data);
  // By its user of the system as the superuser, by password as anybody else.
  const rules = "local all postgres peer map=own\nlocal all all scram-sha-256\n";
  await execute("sh", "-c", `printf '%s' '${rules}' >data/pg_hba.conf && echo "own $(id -un) postgres" >data/pg_ident.conf`);
  const flags = ["-D", data, "-k", home, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50"];
  const [first, ...rest] = [...as, "postgres", ...flags];
  const server = start("postgres", directory, first, rest, user);
  await server.line((line) => line.includes("ready to accept connections"));
  const sql = async (...flags) => (await execute("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", home, "-U", "postgres", ...flags)).stdout.trim();
  const schema = readFileSync(here("schema.sql"), "utf8");
  await sql("-d", "postgres", "-c", "create database notes");
  await execute("sh", "-c", `cat >schema.sql <<'END'\n${schema}\nEND\n`);
  await sql("-d", "notes", "-v", `password=${password}`, "-f", join(home, "schema.sql"));
  return {
    url: `postgres://authenticator:${password}@/notes?host=${encodeURIComponent(home)}`,
    owner: (query) => sql("-d", "notes", "-c", query),
    log: server.log,
    // SIGINT: it ends without waiting for its clients.
    stop: () => server.stop("SIGINT"),
  };
}

/** Clerk's place. `about` is what it says of itself, `key` what the template `postgraphile` is signed with. */
export async function startEmulator(directory, { key = secret(), webhooks, flags = ["--rate-limit", "off"] } = {}) {
  const hook = webhooks ? ["--webhook-url", webhooks] : [];
  const all = ["emulator", "--json", "--listen", "127.0.0.1:0", "--seed", here("seed.toml"), ...hook, ...flags];
  const server = start("emulator", directory, BINARY, all, { PGJWT_KEY: key });
  const about = await server.line((line) => json(line));
  const call = async (method, path, body, headers = {}) => {
    const init = { method, headers: { "content-type": "application/json", ...headers }, body: body && JSON.stringify(body) };
    const answer = await fetch(`${about.api_url}${path}`, init);
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return answer;
  };
  return {
    about,
    key,
    log: server.log,
    /** `/_emulator/...`: what users and administrators do. */
    helper: (method, path, body) => call(method, `/_emulator${path}`, body),
    /** `/v1/...`: Clerk's API, with the secret key. */
    api: (method, path, body) => call(method, `/v1${path}`, body, { authorization: `Bearer ${about.secret_key}` }),
    /** A session token, as the browser of that session would hold it. */
    token: async (session, life = 60) => (await call("GET", `/_emulator/token?session=${session}&expires_in_seconds=${life}`)).text(),
    stop: () => server.stop(),
  };
}

/** A Node program that says on which URL it listens: one of the back ends of compare.mjs. */
export async function startBackend(directory, name, environment) {
  const server = start(name, directory, process.execPath, [here(`compare/${name}.mjs`)], environment);
  const url = await server.line((line) => json(line)?.listening);
  return { url, log: server.log, text: () => server.text(), stop: () => server.stop() };
}

/** PostGraphile on `database`, verifying as `environment` says. */
export async function startPostGraphile(directory, { database, issuer, environment }) {
  const settings = { DATABASE_URL: database, CLERK_ISSUER: issuer, PORT: "0", GRAPHILE_ENV: "production", NODE_ENV: "production" };
  const server = start("postgraphile", directory, process.execPath, [here("server.mjs")], { ...settings, ...environment });
  const url = await server.line((line) => json(line)?.listening);
  return { url, log: server.log, text: () => server.text(), stop: () => server.stop() };
}

/** mintgate with `configuration`, this example's own unless another is named. */
export async function startGateway(directory, { emulator, upstream, template, webhooksPort = 0, environment = {}, configuration = here("mintgate.toml") }) {
  const { about } = emulator;
  const settings = {
    CLERK_SECRET_KEY: about.secret_key,
    CLERK_PUBLISHABLE_KEY: about.publishable_key,
    CLERK_API_URL: about.api_url,
    CLERK_WEBHOOK_SIGNING_SECRET: about.webhook_secret ?? "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    APP_ORIGIN: ORIGIN,
    POSTGRAPHILE_URL: upstream,
    TEMPLATE: template,
    LISTEN: "127.0.0.1:0",
    ADMIN: "127.0.0.1:0",
    WEBHOOKS: `127.0.0.1:${webhooksPort}`,
    MINTGATE_LOG: "info",
  };
  const server = start("mintgate", directory, BINARY, ["run", "--config", configuration], { ...settings, ...environment });
  const said = (message) => server.line((line) => json(line)?.message?.startsWith(message) && json(line).address);
  const [address, admin] = [await said("listening"), await said("admin listening")];
  for (const end = Date.now() + PATIENCE; ; await new Promise((next) => setTimeout(next, 20))) {
    if ((await fetch(`http://${admin}/readyz`)).ok) break;
    if (Date.now() > end) throw new Error(`mintgate does not become ready:\n${server.text()}`);
  }
  return {
    url: `http://${address}/graphql`,
    socket: `ws://${address}/graphql`,
    admin: `http://${admin}`,
    log: server.log,
    text: () => server.text(),
    stop: () => server.stop(),
  };
}

/**
 * All of it, in one of the `VARIANTS`. `environment`: more variables for mintgate; `verify`: how PostGraphile verifies, if
 * not as the variant says; `flags`: the emulator's, if it is to have a rate limit.
 */
export async function startAll(variant = "hs256", { environment = {}, verify = VARIANTS[variant].verify, flags } = {}) {
  const parts = [];
  const begin = async (part) => (parts.unshift(await part), parts[0]);
  const stop = async () => {
    for (const part of parts.splice(0)) await part.stop();
  };
  try {
    const directory = (await begin(workspace())).path;
    const webhooksPort = await freePort();
    const [postgres, emulator] = [
      await begin(startPostgres(directory)),
      await begin(startEmulator(directory, { webhooks: `http://127.0.0.1:${webhooksPort}/webhooks/clerk`, flags })),
    ];
    const { template } = VARIANTS[variant];
    const { issuer } = emulator.about;
    const postgraphile = await begin(
      startPostGraphile(directory, { database: postgres.url, issuer, environment: verify(emulator) }),
    );
    const gateway = await begin(startGateway(directory, { emulator, upstream: postgraphile.url, template, webhooksPort, environment }));
    return { directory, postgres, emulator, postgraphile, gateway, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
