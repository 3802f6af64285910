"""The JSON Schema of the configuration, read by an implementation that is not ours: it is a valid schema, the samples fit it, and
what does not fit is found. MINTGATE_BIN is the binary that prints it."""

import json
import os
import pathlib
import subprocess
import tomllib

import jsonschema

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

printed = subprocess.run([os.environ["MINTGATE_BIN"], "schema"], capture_output=True, text=True, check=True).stdout
schema = json.loads(printed)
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)

samples = sorted((ROOT / "config").glob("*.toml"))
assert len(samples) >= 5, samples
for sample in samples:
    errors = [error.message for error in validator.iter_errors(tomllib.loads(sample.read_text()))]
    assert not errors, (sample, errors)

full = (ROOT / "config" / "full.toml").read_text()
for good, bad in [
    ("[server]", "[servre]"),
    ('timeout = "5s"', 'timeout = "5"'),
    ("workers = 0", "workers = -1"),
    ('access = "errors"', 'access = "some"'),
    ("http2 = false", 'http2 = "no"'),
    ('secret_key = [{ env = "CLERK_SECRET_KEY" }]', 'secret_key = "sk_live_1"'),
]:
    assert good in full, good
    assert not validator.is_valid(tomllib.loads(full.replace(good, bad, 1))), bad
print(f"{len(samples)} samples fit the schema")
