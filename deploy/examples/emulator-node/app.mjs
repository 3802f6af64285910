// A small application: it verifies Clerk sessions, mints tokens for its report service, and listens to Clerk's webhooks.
import { createClerkClient } from "@clerk/backend";
import { verifyWebhook } from "@clerk/backend/webhooks";

/** The application as a function from Request to Response. `settings` is what the environment holds in production. */
export function createApp(settings) {
  const clerk = createClerkClient({
    secretKey: settings.CLERK_SECRET_KEY,
    publishableKey: settings.CLERK_PUBLISHABLE_KEY,
    apiUrl: settings.CLERK_API_URL,
    telemetry: { disabled: true },
  });
  const revoked = new Set();

  async function reports(request) {
    const state = await clerk.authenticateRequest(request, { authorizedParties: ["https://app.example.com"] });
    const { sessionId, userId } = state.toAuth() ?? {};
    if (!sessionId || revoked.has(sessionId)) return Response.json({ error: "sign in" }, { status: 401 });
    try {
      const { jwt } = await clerk.sessions.getToken(sessionId, "reports");
      // A real application would now call the report service with this token.
      return Response.json({ user: userId, token: jwt });
    } catch (error) {
      if (error.status === 404) return Response.json({ error: "sign in" }, { status: 401 });
      const headers = error.retryAfter ? { "retry-after": String(error.retryAfter) } : {};
      return Response.json({ error: "try again" }, { status: 503, headers });
    }
  }

  async function webhooks(request) {
    let event;
    try {
      event = await verifyWebhook(request, { signingSecret: settings.CLERK_WEBHOOK_SIGNING_SECRET });
    } catch {
      return new Response("not signed by Clerk", { status: 400 });
    }
    if (["session.ended", "session.removed", "session.revoked"].includes(event.type)) revoked.add(event.data.id);
    return new Response(null, { status: 204 });
  }

  return async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/reports") return reports(request);
    if (pathname === "/webhooks" && request.method === "POST") return webhooks(request);
    return new Response("not found", { status: 404 });
  };
}

/** The same for node:http. */
export function listener(app) {
  return async (incoming, outgoing) => {
    const chunks = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const body = chunks.length ? Buffer.concat(chunks) : undefined;
    const url = `http://${incoming.headers.host}${incoming.url}`;
    const answer = await app(new Request(url, { method: incoming.method, headers: incoming.headers, body }));
    outgoing.writeHead(answer.status, Object.fromEntries(answer.headers));
    outgoing.end(Buffer.from(await answer.arrayBuffer()));
  };
}
