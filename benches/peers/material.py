"""Makes the key, the certificate and the session tokens. Runs with the Python of the venv, which has `cryptography`.

usage: material.py FOLDER NAME=SESSIONSxEACH ...     as in few=1000x1 fresh=1000x100
"""

import base64
import datetime
import ipaddress
import json
import multiprocessing
import os
import secrets
import sys
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

KID = "ins_2peersAAAAAAAAAAAAAAAAAAAAA"
DAYS = 30


def text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(value):
    return text(json.dumps(value, separators=(",", ":")).encode())


def name(prefix):
    return prefix + secrets.token_hex(14)[:27]


def write(folder, file, data):
    """In one step, so that what was interrupted is not taken for finished."""
    path = os.path.join(folder, file)
    with open(path + ".new", "wb") as out:
        out.write(data)
    os.replace(path + ".new", path)


def keys(folder):
    """The instance's key, in each form that a peer reads."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public, info = key.public_key(), serialization.PublicFormat.SubjectPublicKeyInfo
    write(folder, "public.pem", public.public_bytes(serialization.Encoding.PEM, info))
    write(folder, "public.der", public.public_bytes(serialization.Encoding.DER, info))
    numbers = public.public_numbers()
    modulus, exponent = (text(n.to_bytes((n.bit_length() + 7) // 8, "big")) for n in (numbers.n, numbers.e))
    jwk = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": KID, "n": modulus, "e": exponent}
    write(folder, "jwks.json", json.dumps({"keys": [jwk]}).encode())
    write(folder, "private.pem", private(key))


def private(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.datetime.now(datetime.timezone.utc)
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number()).add_extension(names, critical=False)
    built = built.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(DAYS))
    write(folder, "tls.pem", built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    write(folder, "tls-key.pem", private(key))


def sign_all(work):
    """One token for each session."""
    pem, sessions = work
    key = serialization.load_pem_private_key(pem, None)
    head, now, tokens = compact({"alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": KID, "typ": "JWT"}), int(time.time()), []
    for session, user, organization in sessions:
        claims = {"azp": "https://app.peers.test", "exp": now + DAYS * 86400, "fva": [12, -1], "iat": now,
                  "iss": "https://clerk.peers.test", "jti": secrets.token_hex(10), "nbf": now - 10,
                  "o": {"id": organization, "rol": "member", "slg": "a-company-of-some-size"}, "pla": "o:team",
                  "sid": session, "sts": "active", "sub": user, "v": 2}
        data = head + "." + compact(claims)
        signature = key.sign(data.encode(), padding.PKCS1v15(), hashes.SHA256())
        tokens.append(data + "." + text(signature))
    return tokens


def credentials(folder, file, sessions, each):
    with open(os.path.join(folder, "private.pem"), "rb") as pem:
        pem = pem.read()
    who = [(name("sess_"), name("user_"), name("org_")) for _ in range(sessions)]
    # In slices, so that every processor has something to do and the order stays session after session.
    slices = [(pem, who[at:at + 500]) for _ in range(each) for at in range(0, sessions, 500)]
    with multiprocessing.Pool() as pool:
        tokens = [token for part in pool.imap(sign_all, slices) for token in part]
    write(folder, file, "".join(token + "\n" for token in tokens).encode())
    print(f"  {file}: {len(tokens)} session tokens of {len(tokens[0])} bytes", flush=True)


def fresh(path):
    return os.path.exists(path) and time.time() - os.path.getmtime(path) < (DAYS - 1) * 86400


def main(folder, *sets):
    os.makedirs(folder, exist_ok=True)
    if not fresh(os.path.join(folder, "private.pem")):
        for old in os.listdir(folder):
            os.remove(os.path.join(folder, old))
        certificate(folder)
        keys(folder)
    for one in sets:
        label, _, shape = one.partition("=")
        sessions, each = map(int, shape.split("x"))
        file = f"{label}-{shape}.txt"
        if not fresh(os.path.join(folder, file)):
            credentials(folder, file, sessions, each)


if __name__ == "__main__":
    main(*sys.argv[1:])
