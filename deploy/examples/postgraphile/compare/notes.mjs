// What both back ends ask the database for, and how they answer.
export const LATEST = JSON.stringify({ query: "{ allNotes(first: 10) { nodes { rowId orgId author body } } }" });

/** The notes as JSON; what went wrong as 401 or 502, with the reason in the log. */
export async function answer(response, call) {
  let [status, body] = [502, "{}"];
  try {
    const answered = await call();
    status = answered.status;
    if (status === 200) body = JSON.stringify((await answered.json()).data.allNotes.nodes);
  } catch (error) {
    console.error(error.message);
  }
  response.writeHead(status, { "content-type": "application/json" }).end(body);
}
