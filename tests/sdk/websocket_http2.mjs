// WebSockets over HTTP/2 (RFC 8441) by clients of others: Node's http2 with ws for the frames, and chromium over TLS.
// The upstream is ws's own server. MINTGATE_BIN is the binary.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { WebSocket, WebSocketServer } from "ws";
import { check, describe, finish } from "./support.mjs";

const work = mkdtempSync(join(tmpdir(), "mintgate-ws-"));
process.on("exit", () => rmSync(work, { recursive: true, force: true }));
const PATIENCE = 60000;

// --- the application: a page, and an echo that tells who calls ---

const upgrades = [];
const application = createServer((request, response) => {
  response.setHeader("content-type", "text/html");
  response.end("<!doctype html><title>page</title>");
});
const sockets = new WebSocketServer({ server: application, perMessageDeflate: { threshold: 0 } });
sockets.on("connection", (socket, request) => {
  upgrades.push(request.headers);
  socket.on("message", (data, binary) => socket.send(data, { binary }));
  socket.on("error", () => {});
});
await new Promise((listening) => application.listen(0, "127.0.0.1", listening));
const upstream = `http://127.0.0.1:${application.address().port}`;

// --- mintgate, once in the clear and once with TLS ---

const { about, stop } = await describe();
const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
const files = ["-keyout", join(work, "key.pem"), "-out", join(work, "cert.pem")];
execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", ...files, ...subject], { stdio: "ignore" });

async function gateway(name, tls) {
  const config = join(work, `${name}.toml`);
  writeFileSync(
    config,
    `[clerk]\nsecret_key = { env = "CLERK_SECRET_KEY" }\npublishable_key = "${about.publishable_key}"\n` +
      `api_url = "${about.api_url}"\n[server]\nlisten = ["127.0.0.1:0"]\n${tls}\n[log]\nformat = "json"\naccess = "all"\n` +
      `[[routes]]\nname = "page"\nupstream = "${upstream}"\nsession = []\n` +
      `[[routes]]\nname = "live"\nmatch = { path = "/live" }\nupstream = "${upstream}"\n` +
      `inject = [{ header = "authorization", prefix = "Bearer ", template = "custom_hasura" }, { header = "x-user-id", claim = "sub" }]\n` +
      `[[routes]]\nname = "off"\nmatch = { path = "/off" }\nupstream = "${upstream}"\nsession = []\nwebsocket = false\n`,
  );
  const env = { ...process.env, CLERK_SECRET_KEY: about.secret_key };
  const child = spawn(process.env.MINTGATE_BIN, ["run", "--config", config], { stdio: ["ignore", "ignore", "pipe"], env });
  process.on("exit", () => child.kill());
  const records = [];
  const address = await new Promise((found, failed) => {
    const lines = createInterface({ input: child.stderr });
    lines.on("line", (line) => {
      // Warnings about the configuration come before the log.
      if (!line.startsWith("{")) return;
      const said = JSON.parse(line);
      if (said.message?.startsWith("listening") && said.address) found(said.address);
      if (said.route) records.push(said);
    });
    lines.on("close", () => failed(new Error("the gateway ended")));
  });
  return { port: address.split(":").pop(), records };
}

const session = async (user) => (await fetch(`${about.api_url}/_emulator/token?session=sess_emulator_${user}`)).text();

/** The first value that is there in time. */
async function until(what, find) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await new Promise((over) => setTimeout(over, 50))) {
    const found = find();
    if (found) return found;
  }
  return assert.fail(`never: ${what}`);
}

// --- Node ---

const plain = await gateway("plain", "");
const client = connect(`http://127.0.0.1:${plain.port}`);
const [settings] = await once(client, "remoteSettings");

/** The head of the answer to a CONNECT for a protocol, and its stream. */
async function ask(path, headers = {}, protocol = "websocket") {
  const stream = client.request(
    { ":method": "CONNECT", ":protocol": protocol, ":path": path, "sec-websocket-version": "13", ...headers },
    { endStream: false },
  );
  const [head] = await once(stream, "response");
  return { head, stream };
}

/** ws, over a stream that is open. Without an address it takes itself for a server. */
function over(stream) {
  const socket = new WebSocket(null, undefined, {});
  socket._isServer = false;
  socket.setSocket(stream, Buffer.alloc(0), { allowSynchronousEvents: true, maxPayload: 64 << 20, skipUTF8Validation: false });
  return socket;
}

const get = (path) =>
  new Promise((answered, failed) => {
    const stream = client.request({ ":path": path });
    let text = "";
    stream.on("data", (part) => (text += part)).on("end", () => answered(text)).on("error", failed);
  });

await check("the settings offer extended CONNECT", () => assert.equal(settings.enableConnectProtocol, true));

await check("frames pass both ways beside other streams, and the close is answered", async () => {
  const { head, stream } = await ask("/live", { authorization: `Bearer ${await session("bob")}` });
  assert.equal(head[":status"], 200);
  assert.equal(head["sec-websocket-accept"], undefined);
  const socket = over(stream);
  for (const length of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
    const heard = once(socket, "message");
    socket.send(Buffer.alloc(length, 7));
    assert.equal((await heard)[0].length, length);
    assert.match(await get("/"), /page/);
  }
  const headers = upgrades.at(-1);
  assert.equal(headers["x-user-id"], "user_emulator_bob");
  const claims = JSON.parse(Buffer.from(headers.authorization.split(".")[1], "base64url"));
  assert.ok(claims["https://hasura.io/jwt/claims"], "a minted token");
  const closed = once(socket, "close");
  socket.close(4000, "enough");
  const [code, reason] = await closed;
  assert.deepEqual([code, reason.toString()], [4000, "enough"]);
});

await check("whoever closes the stream is gone for the upstream", async () => {
  const { stream } = await ask("/live", { authorization: `Bearer ${await session("bob")}` });
  const [there] = sockets.clients;
  const left = once(there, "close");
  stream.close(8);
  // 1006: there was no close frame.
  assert.equal((await left)[0], 1006);
});

await check("refusals are answers, and the connection goes on", async () => {
  for (const [path, headers, protocol, status, code] of [
    ["/live", {}, "websocket", 401, "session-missing"],
    ["/live", { cookie: `__session=${await session("bob")}; __client_uat=1` }, "websocket", 403, "origin-forbidden"],
    ["/off", {}, "websocket", 501, "protocol-unsupported"],
    ["/", {}, "connect-udp", 501, "protocol-unsupported"],
    ["/", { "sec-websocket-version": "12" }, "websocket", 400, "request-malformed"],
  ]) {
    const { head, stream } = await ask(path, headers, protocol);
    assert.deepEqual([head[":status"], head["x-mintgate-error"]], [status, code], path);
    stream.close();
  }
  assert.match(await get("/"), /page/);
});

client.close();

// --- a browser ---

await check("chromium opens one on the connection that it has", async () => {
  const secure = await gateway("secure", `tls = { cert = "cert.pem", key = "key.pem" }`);
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
  try {
    const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
    await page.context().addCookies([
      { name: "__session", value: await session("alice"), url: `https://localhost:${secure.port}` },
      { name: "__client_uat", value: "1", url: `https://localhost:${secure.port}` },
    ]);
    await page.goto(`https://localhost:${secure.port}/`);
    const heard = await page.evaluate(
      (url) =>
        new Promise((over, failed) => {
          const socket = new WebSocket(url);
          socket.onopen = () => socket.send("x".repeat(100000));
          socket.onerror = () => failed(new Error("it does not open"));
          socket.onmessage = ({ data }) => socket.close(4000, `${data.length}`);
          socket.onclose = ({ code, reason }) => over([code, reason]);
        }),
      `wss://localhost:${secure.port}/live`,
    );
    assert.deepEqual(heard, [4000, "100000"]);
    assert.equal(upgrades.at(-1)["x-user-id"], "user_emulator_alice");
    const record = await until("it is logged", () => secure.records.find(({ route }) => route === "live"));
    assert.equal(record.status, 200, "101 is HTTP/1.1's");
  } finally {
    await browser.close();
  }
});

stop();
finish("WebSockets over HTTP/2");
