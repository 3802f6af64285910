// The same back end, calling out through mintgate: it passes on the session that it got.
import { createServer } from "node:http";
import { LATEST, answer } from "./notes.mjs";

const server = createServer((request, response) =>
  answer(response, async () => {
    const headers = { "content-type": "application/json", authorization: request.headers.authorization };
    return fetch(process.env.GRAPHQL_URL, { method: "POST", headers, body: LATEST });
  }),
);
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ listening: `http://127.0.0.1:${server.address().port}` })));
