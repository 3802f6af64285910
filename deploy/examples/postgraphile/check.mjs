// Holds the whole example to what README.md says of it, in each variant. Ends with the first check that fails.
//   MINTGATE_BIN=... node check.mjs [hs256 | rs256 | hasura]
import { requests } from "./checks/requests.mjs";
import { issuersKey, sharedKey } from "./checks/rotation.mjs";
import { subscriptions } from "./checks/subscriptions.mjs";
import { VARIANTS, startAll } from "./stack.mjs";

/** Seconds: the least that Clerk gives, so that a token expires while a check looks on. */
const LIFE = 30;
const NEXT = "the-next-shared-key";
const short = { environment: { TOKEN_LIFE: `${LIFE}s` } };

const CHECKS = {
  async hs256(parts) {
    await subscriptions(parts, VARIANTS.hs256.template, LIFE);
    await sharedKey(parts, NEXT);
  },
  async rs256(parts) {
    await issuersKey(parts);
  },
  async hasura() {},
};

const began = Date.now();
for (const variant of process.argv.length > 2 ? process.argv.slice(2) : Object.keys(CHECKS)) {
  console.log(variant);
  const { verify } = VARIANTS[variant];
  // PostGraphile knows the next shared key before the issuer does.
  const both = (of) => (variant === "hs256" ? { PGJWT_KEYS: `${of.key},${NEXT}` } : {});
  const parts = await startAll(variant, { ...short, verify: (of) => ({ ...verify(of), ...both(of) }) });
  let failure;
  try {
    await requests(parts, VARIANTS[variant].template);
    await CHECKS[variant](parts);
  } catch (error) {
    failure = error;
    // Subscribers and callers of the check that failed are still there, and lose what they talk to.
    process.on("unhandledRejection", () => {});
    for (const part of [parts.postgraphile, parts.gateway]) console.error(`--- the end of ${part.log}\n${part.text().split("\n").slice(-12).join("\n")}`);
    console.error(`  ${error.message}`);
  }
  await parts.stop();
  if (failure) process.exit(1);
}
console.log(`all passed in ${Math.round((Date.now() - began) / 1000)} s`);
