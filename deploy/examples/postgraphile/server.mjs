// PostGraphile, with the token verified before anything else. Settings come from the environment; see README.md.
import { createServer } from "node:http";
import { postgraphile } from "postgraphile";
import { makePgService } from "postgraphile/adaptors/pg";
import { grafserv } from "postgraphile/grafserv/node";
import { PostGraphileAmberPreset } from "postgraphile/presets/amber";
import { verifier } from "./claims.mjs";
import { NoteEventsPlugin } from "./feed.mjs";

// PostGraphile 5 is made for Node 22; this is what it uses that Node 20 lacks.
Promise.withResolvers ??= () => {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};

const env = process.env;
const verify = verifier({
  issuer: env.CLERK_ISSUER,
  audience: "postgraphile",
  keys: env.PGJWT_KEYS?.split(","),
  jwksUrl: env.JWKS_URL,
});
const pgService = makePgService({ connectionString: env.DATABASE_URL, schemas: ["app"], pubsub: true });

/** Settings of the requests that were verified. */
const verified = new WeakMap();

const instance = postgraphile({
  extends: [PostGraphileAmberPreset],
  plugins: [NoteEventsPlugin],
  pgServices: [pgService],
  grafserv: { websockets: true, graphiql: false, watch: false },
  grafast: {
    // The request of a WebSocket is the one that asked for the upgrade: `connection_init` is the caller's own word.
    context: ({ node, ws }) => {
      const settings = verified.get(node?.req ?? ws?.request);
      if (!settings) throw new Error("not verified");
      return { pgSettings: settings };
    },
  },
});
const serv = instance.createServ(grafserv);
// It listens nowhere: it gets what has been verified.
const behind = createServer();
await serv.addTo(behind);
await serv.ready();

const refusal = JSON.stringify({ errors: [{ message: "the token is not good" }] });
const head = { "content-type": "application/json", "content-length": Buffer.byteLength(refusal), "www-authenticate": "Bearer" };

const front = createServer(async (request, response) => {
  try {
    verified.set(request, await verify(request.headers.authorization));
  } catch (error) {
    console.error(`refused: ${error.message}`);
    response.writeHead(401, head).end(refusal);
    return;
  }
  behind.emit("request", request, response);
});
front.on("upgrade", async (request, socket, first) => {
  socket.on("error", () => socket.destroy());
  try {
    verified.set(request, await verify(request.headers.authorization));
  } catch (error) {
    console.error(`refused: ${error.message}`);
    socket.end("HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    return;
  }
  behind.emit("upgrade", request, socket, first);
});
front.listen(Number(env.PORT ?? 5678), "127.0.0.1", () => {
  console.log(JSON.stringify({ listening: `http://127.0.0.1:${front.address().port}` }));
});

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(0));
