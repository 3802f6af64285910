// What a team writes in Node to do mintgate's work: a Map of verified credentials, a Map of minted tokens, undici to
// forward.
import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Pool } from "undici";

const { PORT, UPSTREAM, PUBLIC_KEY } = process.env;
const key = createPublicKey(readFileSync(PUBLIC_KEY));
const upstream = new Pool(`http://127.0.0.1:${UPSTREAM}`, { connections: 256, keepAliveTimeout: 3_600_000 });
const verified = new Map();
const minted = new Map();

const json = (part) => JSON.parse(Buffer.from(part, "base64url"));

/** The claims of a good session token; throws where it is none. */
function check(token) {
  const [head, payload, signature, more] = token.split(".");
  if (signature === undefined || more !== undefined || json(head).alg !== "RS256") throw new Error("no session token");
  const signed = Buffer.from(`${head}.${payload}`);
  if (!verify("sha256", signed, key, Buffer.from(signature, "base64url"))) throw new Error("signature");
  return json(payload);
}

async function mint(session) {
  const path = `/v1/sessions/${session}/tokens/peers`;
  const { statusCode, body } = await upstream.request({ method: "POST", path, body: "{}" });
  const answer = await body.json();
  if (statusCode !== 200) throw new Error(`issuer: ${statusCode}`);
  return `Bearer ${answer.jwt}`;
}

function session(header) {
  if (!header?.startsWith("Bearer ")) return undefined;
  const token = header.slice(7);
  let claims = verified.get(token);
  try {
    if (claims === undefined) verified.set(token, (claims = check(token)));
  } catch {
    return undefined;
  }
  return claims.exp * 1000 > Date.now() ? claims.sid : undefined;
}

const server = createServer(async (request, response) => {
  const id = session(request.headers.authorization);
  if (id === undefined) return response.writeHead(401).end();
  try {
    let authorization = minted.get(id);
    if (authorization === undefined) minted.set(id, (authorization = await mint(id)));
    const { connection, ...headers } = request.headers;
    headers.authorization = authorization;
    const body = request.method === "GET" || request.method === "HEAD" ? null : request;
    await upstream.stream({ method: request.method, path: request.url, headers, body }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      return response;
    });
  } catch {
    if (response.headersSent) response.destroy();
    else response.writeHead(502).end();
  }
});
server.keepAliveTimeout = 3_600_000;
server.listen(Number(PORT), "127.0.0.1", 4096);
