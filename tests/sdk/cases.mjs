// Writes session tokens of every kind that a verifier can meet, signed here with node:crypto and so independent of
// mintgate's own code, as JSON lines to standard output. `differential.mjs` judges them with @clerk/backend;
// `tests/it/differential.rs` judges them with mintgate and compares.
//
// The file:
//   line 1   {"type":"instance","now_ms","kid","issuer","publishable_key","cookie_suffix","jwt_key","jwks",
//             "development":{"publishable_key","cookie_suffix"}}
//            `jwt_key` is the PEM of the public key; both publishable keys encode the host of `issuer`.
//   others   {"type":"case","name","via","token","headers","options","ours","why"}
//     name     unique; the part before the first "/" is its axis
//     via      "header": the token is what stands after `Bearer `; "cookie": find it in `headers` first
//     token    the token (for cookie cases "")
//     headers  the request's headers, an object
//     options  {"now_ms"     the verifier's wall time, milliseconds
//               "keys"       "jwt_key" (that key alone, kid ignored) or "jwks" (look the kid up)
//               "issuer"     what iss must equal, or null
//               "authorized_parties", "audience"   lists; empty means not looked at
//               "development"                      whether the instance is a development one (its publishable key)}
//              Clock skew is 5 s; a pending session counts as no session.
//     ours     what mintgate must say, given what the SDK says: "same" as the SDK; "refuse" whatever the SDK says
//              (mintgate is stricter on purpose, `why` says where); "any" where neither is promised (`why`)
//
// A verdict line of differential.mjs: {"name","accepted","reason","verify_token":{"accepted","reason"}}, where
// `accepted` is authenticateRequest's: the whole path, and what "same" means.
import { createHash, createHmac, generateKeyPairSync, sign, constants } from "node:crypto";

const NOW = 1_800_000_000;
const NOW_MS = NOW * 1000 + 500;
const KID = "ins_differential";
const HOST = "clerk.differential.example";
const ISSUER = `https://${HOST}`;
const APP = "https://app.differential.example";

const rsa = () => generateKeyPairSync("rsa", { modulusLength: 2048 });
const { privateKey, publicKey } = rsa();
const stranger = rsa();
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
const ed = generateKeyPairSync("ed25519");
const pem = publicKey.export({ type: "spki", format: "pem" });
const jwk = publicKey.export({ format: "jwk" });

const publishable = (kind) => `${kind}${Buffer.from(`${HOST}$`).toString("base64")}`;
const suffixOf = (key) => createHash("sha1").update(key).digest("base64url").slice(0, 8);
const LIVE = publishable("pk_live_");
const TEST = publishable("pk_test_");

// --- building blocks ---

const b64 = (data) => Buffer.from(data).toString("base64url");
const rs = (hash, key = privateKey) => (input) => sign(hash, Buffer.from(input), key);
const ps = (hash, saltLength) => (input) =>
  sign(hash, Buffer.from(input), { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength });
const hs = (hash, secret) => (input) => createHmac(hash, secret).update(input).digest();
const nothing = () => Buffer.alloc(0);

const HEADER = { alg: "RS256", cat: "cl_B7d4PD111AAA", kid: KID, typ: "JWT" };
const CLAIMS = {
  azp: APP,
  exp: NOW + 60,
  fva: [0, -1],
  iat: NOW,
  iss: ISSUER,
  jti: "0123456789abcdef0123",
  nbf: NOW - 10,
  sid: "sess_differential",
  sts: "active",
  sub: "user_differential",
  v: 2,
};

/** `base` with `change`; a member that is undefined goes. */
const mix = (base, change) => JSON.parse(JSON.stringify({ ...base, ...change }));

/** A token out of texts that are signed as they are. */
const raw = (header, claims, signer = rs("RSA-SHA256")) => {
  const input = `${b64(header)}.${b64(claims)}`;
  return `${input}.${b64(signer(input))}`;
};
const token = (claims = {}, header = {}, signer) =>
  raw(JSON.stringify(mix(HEADER, header)), JSON.stringify(mix(CLAIMS, claims)), signer);

/** The claims as text, with one member written by hand: for numbers that JSON.stringify would change. */
const handwritten = (name, text) => {
  const rest = JSON.stringify(mix(CLAIMS, { [name]: undefined }));
  return raw(JSON.stringify(HEADER), `${rest.slice(0, -1)},"${name}":${text}}`);
};

const names = new Set();
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const STRICT = (why) => ({ ours: "refuse", why });
const OPEN = (why) => ({ ours: "any", why });

function add(name, token, { options = {}, ours = "same", why, headers, via = "header" } = {}) {
  if (names.has(name)) throw new Error(`two cases are named ${name}`);
  names.add(name);
  print({
    type: "case",
    name,
    via,
    token,
    headers: headers ?? { authorization: `Bearer ${token}` },
    options: {
      now_ms: NOW_MS,
      keys: "jwks",
      issuer: ISSUER,
      authorized_parties: [],
      audience: [],
      development: false,
      ...options,
    },
    ours,
    ...(why && { why }),
  });
}

print({
  type: "instance",
  now_ms: NOW_MS,
  kid: KID,
  issuer: ISSUER,
  publishable_key: LIVE,
  cookie_suffix: suffixOf(LIVE),
  jwt_key: pem,
  jwks: { keys: [{ ...jwk, kid: KID, use: "sig", alg: "RS256" }] },
  development: { publishable_key: TEST, cookie_suffix: suffixOf(TEST) },
});

// --- plain ---

add("plain/jwks", token());
add("plain/jwt_key", token(), { options: { keys: "jwt_key" } });
add("plain/no options", token(), { options: { issuer: null } });
add("plain/v1", token({ v: undefined, org_id: "org_1", org_role: "org:admin", org_slug: "a", org_permissions: [] }));
add("plain/v2 organization", token({ o: { id: "org_1", rol: "admin", slg: "a", per: "read", fpm: "1" }, fea: "o:x" }));
add("plain/actor", token({ act: { iss: ISSUER, sid: "sess_actor", sub: "user_actor" } }));

// --- algorithm ---

const secrets = {
  pem,
  "pem without line end": pem.trimEnd(),
  der: publicKey.export({ type: "spki", format: "der" }),
  modulus: Buffer.from(jwk.n, "base64url"),
  "modulus text": jwk.n,
  empty: "",
};
for (const keys of ["jwks", "jwt_key"]) {
  const options = { keys };
  for (const [alg, signer] of [
    ["RS384", rs("RSA-SHA384")],
    ["RS512", rs("RSA-SHA512")],
    ["PS256", ps("sha256", 32)],
    ["PS384", ps("sha384", 48)],
    ["PS512", ps("sha512", 64)],
    ["ES256", (input) => sign("sha256", Buffer.from(input), { key: ec.privateKey, dsaEncoding: "ieee-p1363" })],
    ["EdDSA", (input) => sign(null, Buffer.from(input), ed.privateKey)],
    ["none", nothing],
    ["None", nothing],
    ["NONE", nothing],
    ["", nothing],
  ]) {
    add(`alg/${alg} as it says, ${keys}`, token({}, { alg }, signer), { options });
    add(`alg/${alg} with a signature of RS256, ${keys}`, token({}, { alg }), { options });
    add(`alg/RS256 with a signature of ${alg || "nothing"}, ${keys}`, token({}, {}, signer), {
      options,
      // Two empty signatures under two names are one token twice, which does no harm.
    });
  }
  for (const [name, secret] of Object.entries(secrets)) {
    for (const [alg, hash] of [["HS256", "sha256"], ["HS384", "sha384"], ["HS512", "sha512"]]) {
      add(`alg/${alg} with the ${name}, ${keys}`, token({}, { alg }, hs(hash, secret)), { options });
    }
  }
  for (const alg of ["rs256", "RS256 ", "RS-256", null, 256, true, ["RS256"], { a: "RS256" }, undefined]) {
    add(`alg/${JSON.stringify(alg)}, ${keys}`, token({}, { alg }), { options });
  }
  add(`alg/another key, ${keys}`, token({}, {}, rs("RSA-SHA256", stranger.privateKey)), { options });
  add(
    `alg/another key in the header, ${keys}`,
    token({}, { jwk: stranger.publicKey.export({ format: "jwk" }) }, rs("RSA-SHA256", stranger.privateKey)),
    { options },
  );
}

// --- category ---

for (const cat of [
  undefined, "cl_B7d4PD111AAA", "cl_I7d4PD111III", "cl_B7d4PD222AAA", "cl_B7d4PD333AAA", "cl_B7d4PD444AAA",
  "CL_B7D4PD111AAA", "cl_B7d4PD111AAA ", "", null, 0, 1, true, false, [], ["cl_B7d4PD111AAA"], {},
]) {
  for (const keys of ["jwks", "jwt_key"]) {
    add(`cat/${JSON.stringify(cat)}, ${keys}`, token({}, { cat }), { options: { keys } });
  }
}
add("cat/a template token", token({ sid: undefined, v: undefined, sts: undefined }, { cat: "cl_B7d4PD222AAA" }));
add("cat/a machine token", token({ sub: "mch_1", sid: undefined }, { cat: "cl_B7d4PD333AAA" }));

// --- typ ---

for (const typ of [undefined, "JWT", "jwt", "Jwt", "JWT ", "application/jwt", "at+jwt", "application/at+jwt", "", null, 1, ["JWT"]]) {
  add(`typ/${JSON.stringify(typ)}`, token({}, { typ }));
}

// --- other headers ---

for (const [name, value] of [
  ["crit", ["exp"]], ["crit", []], ["crit", ["b64"]], ["crit", null], ["crit", "exp"], ["crit", {}], ["crit", 1],
]) {
  add(`header/${name} ${JSON.stringify(value)}`, token({}, { [name]: value }), STRICT("crit is refused"));
}
add("header/b64 false with crit", token({}, { b64: false, crit: ["b64"] }), STRICT("crit is refused"));
for (const [name, value] of [
  ["oiat", NOW], ["jku", "https://evil.example/jwks"], ["x5u", "https://evil.example/x5u"], ["x5c", ["AA"]], ["jwk", jwk],
  ["zip", "DEF"], ["cty", "JWT"], ["b64", false], ["enc", "A128GCM"], ["unknown", { deep: [1, 2, 3] }],
]) {
  add(`header/${name}`, token({}, { [name]: value }));
}

// --- key id ---

for (const kid of [undefined, null, "", "ins_other", KID.toUpperCase(), `${KID} `, `${KID}\u0000`, 1, true, {}, "constructor", "__proto__", "../jwks", "x".repeat(4000)]) {
  const name = String(JSON.stringify(kid)).slice(0, 40);
  add(`kid/${name}, jwks`, token({}, { kid }), { options: { keys: "jwks" } });
  // With one configured key the kid is not looked at, but it still has to be a text to be a kid.
  const ours = kid === undefined || typeof kid === "string" ? {} : OPEN("a kid that is no text, where kid is ignored");
  add(`kid/${name}, jwt_key`, token({}, { kid }), { options: { keys: "jwt_key" }, ...ours });
}
add("kid/[KID], jwks", token({}, { kid: [KID] }), STRICT("a kid is a text; JavaScript makes one of a list"));

// --- claims of every type ---

const RANGE = "an integer that a clock can hold";
const WHOLE = "JSON integers; the SDK takes fractions";
const ODD = [
  ["missing", undefined], ["null", null], ["empty text", ""], ["text", "text"], ["numeric text", String(NOW + 60)],
  ["true", true], ["false", false], ["list", []], ["list of one", [NOW + 60]], ["object", {}], ["zero", 0], ["minus one", -1],
];
for (const name of ["exp", "nbf", "iat", "sub", "sid", "iss", "azp", "sts", "jti", "fva", "v", "aud"]) {
  for (const [kind, value] of ODD) {
    let ours = {};
    if (name === "sid" && (typeof value !== "string" || value === "")) ours = STRICT("sid is a text that is not empty");
    if (name === "sub" && value === "") ours = STRICT("sub is not empty");
    add(`claim/${name} ${kind}`, token({ [name]: value }), ours);
    if (name === "iss" || name === "azp") {
      add(`claim/${name} ${kind}, not looked at`, token({ [name]: value }), { options: { issuer: null } });
      add(`claim/${name} ${kind}, looked at`, token({ [name]: value }), { options: { authorized_parties: [APP] } });
    }
  }
}
for (const [text, ours] of [
  [`${NOW + 60}.0`, OPEN(WHOLE)], [`${NOW + 60}.5`, STRICT(WHOLE)], ["1.80000006e9", OPEN(WHOLE)], ["1.80000006E+9", OPEN(WHOLE)],
  ["1e400", STRICT(RANGE)], ["1e20", STRICT(RANGE)], ["100000000000000000000", STRICT(RANGE)],
  ["9223372036854775807", OPEN(RANGE)], ["9223372036854775808", OPEN(RANGE)], ["9007199254740993", OPEN(RANGE)],
  ["4102444800000", {}], ["-9223372036854775808", STRICT("expired")], ["-1e400", STRICT("expired")], ["-0", {}], ["0.5", {}],
]) {
  add(`number/exp ${text}`, handwritten("exp", text), ours);
}
for (const name of ["nbf", "iat"]) {
  for (const [text, ours] of [
    [`${NOW}.0`, OPEN(WHOLE)], [`${NOW}.5`, STRICT(WHOLE)], ["1.8e9", OPEN(WHOLE)], ["1e400", STRICT(RANGE)], ["1e20", STRICT(RANGE)],
    ["9223372036854775807", STRICT("in the future")], ["9007199254740993", STRICT("in the future")], ["4102444800000", {}],
    ["-9223372036854775808", OPEN(RANGE)], ["-1e400", STRICT(RANGE)], ["-1", {}], ["-0", OPEN("minus zero")], ["0", {}],
  ]) {
    add(`number/${name} ${text}`, handwritten(name, text), ours);
  }
}
for (const text of ["NaN", "Infinity", "01", "+1", "0x10", "1_0", "'1'", "1.", ".5", "1e"]) {
  add(`number/exp ${text} is not JSON`, handwritten("exp", text));
}
for (const sid of ["sess/1", "../x", "sess?x", "sess#x", "sess%2f", "sess 1", "é", "sess\n1", "sess\u0000", "x".repeat(129)]) {
  add(`sid/${JSON.stringify(sid).slice(0, 40)}`, token({ sid }), STRICT("sid goes into a URL"));
}
for (const sid of ["s", "sess-1_A", "x".repeat(128)]) add(`sid/${sid.slice(0, 40)}`, token({ sid }));
for (const sub of ["mch_1", "mch_", "xmch_1", "user é", " ", "user\u0000"]) add(`sub/${JSON.stringify(sub)}`, token({ sub }));
for (const sts of ["active", "pending", "PENDING", "pending ", "expired", "revoked"]) add(`sts/${sts}`, token({ sts }));
for (const [name, claims] of [
  ["o null", { o: null }], ["o text", { o: "org_1" }], ["o list", { o: [] }], ["o empty", { o: {} }], ["o id number", { o: { id: 1 } }],
  ["o role number", { o: { id: "org_1", rol: 1 } }], ["org_id number", { v: undefined, org_id: 1 }],
  ["org_role list", { v: undefined, org_id: "org_1", org_role: [] }], ["v text", { v: "2", o: { id: "org_1" } }],
  ["v three", { v: 3, o: { id: "org_1" } }], ["act text", { act: "user_1" }], ["act null", { act: null }],
]) {
  add(`organization/${name}`, token(claims), OPEN("an organization or actor of an odd type"));
}

// --- audience ---

for (const [name, aud] of [
  ["absent", undefined], ["equal", "api"], ["other", "web"], ["in a list", ["web", "api"]], ["not in a list", ["web"]],
  ["empty list", []], ["a number", 1], ["list of numbers", [1]], ["null", null], ["empty", ""], ["letter case", "API"],
]) {
  add(`aud/${name}, not looked at`, token({ aud }));
  const vague = aud === undefined || typeof aud !== "string" && !(Array.isArray(aud) && aud.length && aud.every((a) => typeof a === "string")) || aud === "";
  add(`aud/${name}, looked at`, token({ aud }), {
    options: { audience: ["api"] },
    ...(vague && STRICT("with a configured audience aud must match; the SDK lets an absent or odd one pass")),
  });
}

// --- authorized parties ---

for (const [list, parties] of [["one", [APP]], ["two", ["https://other.example", APP]], ["other", ["https://other.example"]]]) {
  for (const azp of [
    APP, undefined, null, "", APP.toUpperCase(), `${APP}/`, `${APP}:443`, APP.replace("https", "http"), `${APP}.evil.example`,
    APP.slice(0, -1), ` ${APP}`, "null", [APP], { origin: APP },
  ]) {
    add(`azp/${list} ${JSON.stringify(azp)}`, token({ azp }), { options: { authorized_parties: parties } });
  }
}

// --- issuer ---

for (const iss of [
  ISSUER, undefined, null, "", `${ISSUER}/`, ISSUER.toUpperCase(), ISSUER.replace("https", "http"), HOST, `${ISSUER}.evil.example`,
  `${ISSUER} `, [ISSUER], "https://clerk.other.example",
]) {
  add(`iss/${JSON.stringify(iss)}`, token({ iss }));
  add(`iss/${JSON.stringify(iss)}, not looked at`, token({ iss }), { options: { issuer: null } });
}

// --- the clock: every second around the edge, at four places within a second ---

for (const ms of [0, 1, 500, 999]) {
  const now_ms = NOW * 1000 + ms;
  for (let off = -8; off <= 8; off += 1) {
    for (const name of ["exp", "nbf", "iat"]) {
      add(`clock/${name} ${off} s at +${ms} ms`, token({ [name]: NOW + off }), { options: { now_ms } });
    }
  }
}
for (const [name, now_ms] of [["epoch", 0], ["a day late", NOW_MS + 86_400_000], ["a day early", NOW_MS - 86_400_000]]) {
  add(`clock/${name}`, token(), { options: { now_ms } });
}

// --- the shape of the JWS ---

{
  const good = token();
  const [header, claims, signature] = good.split(".");
  const resigned = (header, claims) => `${header}.${claims}.${b64(rs("RSA-SHA256")(`${header}.${claims}`))}`;
  const padded = (part) => part + "=".repeat((4 - (part.length % 4)) % 4 || 4);
  const NOPAD = STRICT("base64url without padding");
  for (const [name, text] of [
    ["two parts", `${header}.${claims}`], ["one part", header], ["four parts", `${good}.${signature}`], ["five parts", `${good}.a.b`],
    ["dot behind", `${good}.`], ["dot before", `.${good}`], ["no signature", `${header}.${claims}.`], ["no claims", `${header}..${signature}`],
    ["no header", `.${claims}.${signature}`], ["two dots", ".."], ["signature cut", good.slice(0, -4)],
    ["signature longer", `${good}AAAA`], ["signature of another token", `${header}.${claims}.${token({ jti: "x" }).split(".")[2]}`],
    ["signature reversed", `${header}.${claims}.${b64(Buffer.from(signature, "base64url").reverse())}`],
    ["header in standard base64", resigned(Buffer.from('{"alg":"RS256","kid":"ins_differential","x":"ÿþ???>>>"}').toString("base64").replaceAll("=", ""), claims)],
    ["claims changed", `${header}.${b64(JSON.stringify(mix(CLAIMS, { sub: "user_other" })))}.${signature}`],
    ["trailing bits in the signature", `${good.slice(0, -1)}${"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".at("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".indexOf(good.at(-1)) ^ 1)}`],
  ]) {
    add(`shape/${name}`, text);
  }
  // A header and claims of each length modulo 3, so that padding really is added.
  for (const fill of ["", "x", "xx"]) {
    const plainHeader = b64(JSON.stringify({ ...HEADER, fill }));
    const plainClaims = b64(JSON.stringify({ ...CLAIMS, fill }));
    add(`shape/unpadded, ${fill.length} more`, resigned(plainHeader, plainClaims));
    if (padded(plainHeader).endsWith("=") && plainHeader.length % 4) add(`shape/padded header, ${fill.length} more`, resigned(padded(plainHeader), plainClaims), NOPAD);
    if (padded(plainClaims).endsWith("=") && plainClaims.length % 4) add(`shape/padded claims, ${fill.length} more`, resigned(plainHeader, padded(plainClaims)), NOPAD);
    add(`shape/too much padding, ${fill.length} more`, resigned(plainHeader, `${plainClaims}====`), NOPAD);
  }
  add("shape/padded signature", `${good}==`, NOPAD);
  for (let bit = 0; bit < 64; bit += 1) {
    const bytes = Buffer.from(signature, "base64url");
    bytes[bit * 4] ^= 1 << (bit % 8);
    add(`shape/signature with bit ${bit * 32 + (bit % 8)} turned`, `${header}.${claims}.${b64(bytes)}`);
  }

  const [h, c] = [JSON.stringify(HEADER), JSON.stringify(CLAIMS)];
  const more = (json, text) => `${json.slice(0, -1)},${text}}`;
  const before = (json, text) => `{${text},${json.slice(1)}`;
  const TWICE = STRICT("no JSON key twice");
  for (const [name, header, claims, ours] of [
    ["alg twice", before(h, '"alg":"none"'), c, TWICE],
    ["kid twice", before(h, '"kid":"ins_other"'), c, TWICE],
    ["cat twice", before(h, '"cat":"cl_B7d4PD222AAA"'), c, TWICE],
    ["cat twice, template last", more(h, '"cat":"cl_B7d4PD222AAA"'), c, {}],
    ["unknown header twice", more(h, '"x":1,"x":2'), c, TWICE],
    ["sid twice", h, before(c, '"sid":"sess_other"'), TWICE],
    ["sub twice", h, before(c, '"sub":"user_other"'), TWICE],
    ["exp twice", h, before(c, '"exp":1'), TWICE],
    ["exp twice, expired last", h, more(c, '"exp":1'), {}],
    ["sts twice", h, before(c, '"sts":"pending"'), TWICE],
    ["unknown claim twice", h, more(c, '"x":1,"x":1'), TWICE],
    ["sid twice, once escaped", h, more(c, '"\\u0073id":"sess_differential"'), TWICE],
    ["twice inside a claim", h, more(c, '"x":{"a":1,"a":2}'), OPEN("a key twice inside a claim")],
    ["escaped names", h, c.replace('"sid"', '"\\u0073id"'), {}],
    ["escaped value", h, c.replace('"sess_', '"\\u0073ess_'), {}],
    ["white space", `\n\t ${h} \r\n`, ` ${c.replaceAll(",", " ,\n")} `, {}],
    ["text behind the header", `${h}x`, c, {}],
    ["text behind the claims", h, `${c}{}`, {}],
    ["comma at the end", h, `${c.slice(0, -1)},}`, {}],
    ["header is a list", `[${h}]`, c, {}],
    ["header is null", "null", c, {}],
    ["header is a text", '"RS256"', c, {}],
    ["header is empty", "{}", c, {}],
    ["claims are a list", h, `[${c}]`, {}],
    ["claims are null", h, "null", {}],
    ["claims are a number", h, "1", {}],
    ["claims are empty", h, "{}", {}],
    ["not JSON", h, "sub=user_1", {}],
    ["byte order mark in the header", `\ufeff${h}`, c, STRICT("JSON has no byte order mark (RFC 8259 section 8.1)")],
    ["byte order mark in the claims", h, `\ufeff${c}`, STRICT("JSON has no byte order mark (RFC 8259 section 8.1)")],
    ["invalid UTF-8 in a claim", h, Buffer.from(more(c, '"x":"\xff"'), "latin1"), STRICT("JSON is UTF-8")],
    ["invalid UTF-8 in the header", Buffer.from(more(h, '"x":"\xff"'), "latin1"), c, STRICT("JSON is UTF-8")],
    ["lone surrogate in a claim", h, more(c, '"x":"\\ud800"'), OPEN("a text that is no Unicode")],
    ["control character in a claim", h, more(c, '"x":"\u0001"'), {}],
    ["NUL escaped in a claim", h, more(c, '"x":"\\u0000"'), {}],
    ["__proto__ claim", h, more(c, '"__proto__":{"sid":"sess_other"}'), {}],
    ["emoji", h, more(c, '"name":"😀 é"'), {}],
    ["deep", h, more(c, `"x":${"[".repeat(60)}${"]".repeat(60)}`), {}],
    ["too deep", h, more(c, `"x":${"[".repeat(500)}${"]".repeat(500)}`), OPEN("nesting beyond any need")],
    ["large", h, more(c, `"x":"${"y".repeat(8000)}"`), {}],
    ["too large", h, more(c, `"x":"${"y".repeat(16 * 1024)}"`), STRICT("at most 16 KiB")],
  ]) {
    add(`json/${name}`, raw(header, claims), ours);
  }
}
for (const text of ["ak_0123456789", "oat_0123456789", "mt_0123456789", "m2m_0123456789", "sk_test_0123456789", "undefined", "null", "x"]) {
  add(`opaque/${text}`, text);
}

// --- cookies: which one counts, and whether it is outdated ---

const jwts = {
  absent: undefined,
  good: token(),
  newer: token({ iat: NOW + 2, exp: NOW + 62 }),
  expired: token({ iat: NOW - 100, nbf: NOW - 110, exp: NOW - 40 }),
  "of another instance": token({ iss: "https://clerk.other.example" }),
  "without iss": token({ iss: undefined }),
};
const uats = { absent: undefined, zero: "0", set: String(NOW - 5) };
for (const development of [false, true]) {
  const suffix = suffixOf(development ? TEST : LIVE);
  const kind = development ? "development" : "production";
  const cookies = (list) => {
    // A development instance wants a dev browser, which is no matter of a gateway: both names are there.
    const all = development ? [...list, ["__clerk_db_jwt", "d"], [`__clerk_db_jwt_${suffix}`, "d"]] : list;
    return { cookie: all.filter(([, value]) => value !== undefined).map((pair) => pair.join("=")).join("; ") };
  };
  for (const [plain, plainToken] of Object.entries(jwts)) {
    for (const [suffixed, suffixedToken] of Object.entries(jwts)) {
      for (const [plainUat, plainUatText] of Object.entries(uats)) {
        for (const [suffixedUat, suffixedUatText] of Object.entries(uats)) {
          const headers = cookies([
            ["__session", plainToken],
            [`__session_${suffix}`, suffixedToken],
            ["__client_uat", plainUatText],
            [`__client_uat_${suffix}`, suffixedUatText],
          ]);
          if (!headers.cookie) continue;
          add(`cookie/${kind}, __session ${plain}, suffixed ${suffixed}, uat ${plainUat}, suffixed ${suffixedUat}`, "", {
            via: "cookie",
            headers,
            options: { development },
          });
        }
      }
    }
  }
  for (const [name, uat, ours] of [
    ["equal to iat", String(NOW), {}], ["one later", String(NOW + 1), {}], ["one earlier", String(NOW - 1), {}],
    ["far later", "99999999999", {}], ["negative", "-1", OPEN("a uat that Clerk does not write")],
    ["text", "abc", {}], ["text behind", `${NOW}x`, OPEN("a uat that Clerk does not write")], ["empty", "", {}],
    ["fraction", `${NOW}.5`, OPEN("a uat that Clerk does not write")],
  ]) {
    add(`uat/${kind}, ${name}`, "", {
      via: "cookie",
      headers: cookies([["__session", jwts.good], ["__client_uat", uat]]),
      options: { development },
      ...ours,
    });
  }
}
for (const [name, claims, header, ours] of [
  ["template token", {}, { cat: "cl_B7d4PD222AAA" }, {}], ["without azp", { azp: undefined }, {}, {}], ["pending", { sts: "pending" }, {}, {}],
  ["without iat", { iat: undefined }, {}, OPEN("whether it is outdated cannot be told")], ["machine token", { sub: "mch_1" }, {}, {}],
]) {
  add(`cookie-claims/${name}`, "", {
    via: "cookie",
    headers: { cookie: `__session=${token(claims, header)}; __client_uat=${NOW - 5}` },
    ...ours,
  });
}
for (const parties of [[APP], ["https://other.example"]]) {
  add(`cookie-claims/azp of ${parties}`, "", {
    via: "cookie",
    headers: { cookie: `__session=${jwts.good}; __client_uat=${NOW - 5}` },
    options: { authorized_parties: parties },
  });
}
