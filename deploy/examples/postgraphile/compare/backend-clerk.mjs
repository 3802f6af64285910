// A back end that gets the database's token by itself: Clerk's SDK verifies the session and mints, once for each request.
import { createClerkClient } from "@clerk/backend";
import { createServer } from "node:http";
import { LATEST, answer } from "./notes.mjs";

const { CLERK_SECRET_KEY: secretKey, CLERK_PUBLISHABLE_KEY: publishableKey, CLERK_API_URL: apiUrl } = process.env;
const clerk = createClerkClient({ secretKey, publishableKey, apiUrl, telemetry: { disabled: true } });

const server = createServer((request, response) =>
  answer(response, async () => {
    const { authorization } = request.headers;
    const asked = new Request("http://backend/notes", { headers: { authorization } });
    const state = await clerk.authenticateRequest(asked, { authorizedParties: [process.env.APP_ORIGIN] });
    if (!state.isAuthenticated) return { status: 401 };
    const token = await state.toAuth().getToken({ template: process.env.TEMPLATE });
    const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
    return fetch(process.env.GRAPHQL_URL, { method: "POST", headers, body: LATEST });
  }),
);
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ listening: `http://127.0.0.1:${server.address().port}` })));
