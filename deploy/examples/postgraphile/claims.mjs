// From a bearer token to what PostgreSQL is told: a role out of a closed list, and the settings that the policies read.
import { createRemoteJWKSet, jwtVerify } from "jose";

/** What a role of the organization may be in the database. Any other name, and none, is anonymous. */
const ROLES = new Map([["org:admin", "admin"], ["org:member", "member"]]);
const HASURA = "https://hasura.io/jwt/claims";
const NOBODY = { role: "anonymous" };

/**
 * A function from an Authorization header to settings for PostgreSQL; it throws when there is a token and it is not good.
 * `keys`: secrets of HS256, the newest first; or `jwksUrl`: RS256. Never both: then a public key could serve as a secret.
 */
export function verifier({ issuer, audience, keys, jwksUrl }) {
  const rules = { issuer, audience, requiredClaims: ["exp", "sub"], algorithms: [jwksUrl ? "RS256" : "HS256"] };
  // jose asks for an unknown key no oftener than each 30 s by default: a rotation within that time fails.
  const remote = jwksUrl && createRemoteJWKSet(new URL(jwksUrl), { cooldownDuration: 1000, cacheMaxAge: 5000 });
  const secrets = (keys ?? []).map((key) => new TextEncoder().encode(key));

  async function payload(token) {
    if (remote) return (await jwtVerify(token, remote, rules)).payload;
    let refused = new Error("no key");
    for (const secret of secrets) {
      try {
        return (await jwtVerify(token, secret, rules)).payload;
      } catch (error) {
        refused = error;
      }
    }
    throw refused;
  }

  return async (authorization) => {
    if (authorization === undefined) return NOBODY;
    const [, token] = /^Bearer ([^ ]+)$/i.exec(authorization) ?? [];
    if (!token) throw new Error("no bearer token");
    const claims = await payload(token);
    const own = claims[HASURA];
    const org = own ? own["x-hasura-org-id"] : claims.org_id;
    const role = own ? own["x-hasura-default-role"] : claims.org_role;
    // The subject is Clerk's own claim in either form; a template cannot set it.
    const settings = { role: ROLES.get(role) ?? "anonymous", "jwt.claims.sub": claims.sub };
    if (typeof org === "string") settings["jwt.claims.org_id"] = org;
    return settings;
  };
}
