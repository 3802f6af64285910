// The subscription `noteEvents`: what happens to the notes of the caller's organization, each event once.
import { access, context, lambda, listen } from "postgraphile/grafast";
import { extendSchema, gql } from "postgraphile/utils";

/** Rows that one look brings at most. */
const BATCH = 100;

/**
 * The events behind `cursor`, and then those that come. PostgreSQL's notification only says that there is something; what
 * it is, is read with the caller's role and settings. So the policies decide, and one who was away misses nothing.
 */
async function* events(settings, withPgClient, subscriber, cursor) {
  const organization = settings["jwt.claims.org_id"];
  if (!organization) throw new Error("no active organization");
  // The topic comes out of the verified token. Before the first look, so that nothing happens in between.
  const woken = subscriber.subscribe(`notes:${organization}`);
  try {
    for (;;) {
      const { rows } = await withPgClient(settings, (client) =>
        client.query({
          // By the column: a bare `id` would be the text that is selected, and '101' comes before '99'.
          text: `select id::text, note_id::text, kind, body from app.note_events e where id > $1 order by e.id limit ${BATCH}`,
          values: [cursor],
        }),
      );
      for (const row of rows) {
        yield row;
        cursor = row.id;
      }
      if (rows.length < BATCH && (await woken.next()).done) return;
    }
  } finally {
    await woken.return();
  }
}

/** What `listen` subscribes to, for one request. */
function feed() {
  const ofRequest = ["pgSettings", "withPgClient", "pgSubscriber"].map((name) => context().get(name));
  return lambda(ofRequest, ([settings, withPgClient, subscriber]) => ({
    subscribe: (after) => events(settings, withPgClient, subscriber, after ?? "0"),
  }));
}

export const NoteEventsPlugin = extendSchema({
  typeDefs: gql`
    type NoteHappened {
      id: BigInt!
      noteId: BigInt!
      kind: String!
      body: String!
    }
    extend type Subscription {
      """
      after: the id of the last event that the caller has; it gets those behind it first.
      """
      noteEvents(after: BigInt): NoteHappened
    }
  `,
  objects: {
    Subscription: {
      plans: {
        noteEvents: {
          subscribePlan: (_, { $after }) => listen(feed(), $after),
          plan: ($event) => $event,
        },
      },
    },
    NoteHappened: {
      plans: {
        id: ($event) => access($event, "id"),
        noteId: ($event) => access($event, "note_id"),
        kind: ($event) => access($event, "kind"),
        body: ($event) => access($event, "body"),
      },
    },
  },
});
