// What ./start runs: everything, until it is told to stop.
import { VARIANTS, startAll } from "./stack.mjs";

const [variant = "hs256"] = process.argv.slice(2);
if (!Object.hasOwn(VARIANTS, variant)) {
  console.error(`not one of ${Object.keys(VARIANTS).join(", ")}: ${variant}`);
  process.exit(2);
}
const { directory, emulator, gateway, stop } = await startAll(variant);
const { api_url } = emulator.about;
const curl = (session, query) =>
  `curl -s ${gateway.url} -H 'content-type: application/json' \\\n` +
  `    -H "authorization: Bearer $(curl -s '${api_url}/_emulator/token?session=${session}')" \\\n` +
  `    -d '${JSON.stringify({ query })}'`;
console.log(`GraphQL, through mintgate  ${gateway.url}
subscriptions              ${gateway.socket}
status page                ${gateway.admin}
logs                       ${directory}

Ann of Acme writes, Abe of Acme reads, Gil of Globex reads nothing:

  ${curl("sess_ann", 'mutation { createNote(input: { note: { body: "hello" } }) { note { orgId author body } } }')}

  ${curl("sess_abe", "{ allNotes { nodes { orgId author body } } }")}

  ${curl("sess_gil", "{ allNotes { nodes { orgId author body } } }")}

Stop with ctrl-c.`);

let stopping;
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    stopping ??= stop().then(
      () => process.exit(0),
      (error) => (console.error(error), process.exit(1)),
    );
  });
}
