"""Where things are: this folder, the work folder, the ports, the CPUs."""

import os

HERE = os.path.dirname(os.path.abspath(__file__))
CONF = os.path.join(HERE, "conf")
BENCHES = os.path.dirname(HERE)
ROOT = os.path.dirname(BENCHES)

# Everything that a run makes but its report; below target/, which git ignores and `cargo clean` removes.
WORK = os.path.join(ROOT, "target", "peers")
RUN = os.path.join(WORK, "run")
MATERIAL = os.path.join(WORK, "material")
MEASURED = os.path.join(WORK, "measured")
VENV = os.path.join(WORK, "venv")
NODE = os.path.join(WORK, "node")
CARGO = os.path.join(WORK, "cargo")

# One peer runs at a time, so all of them have the same port.
PEER, ADMIN, UPSTREAM, UPSTREAM_H2 = 18210, 18211, 18200, 18201

# The load and what stands behind the peers share one CPU; a peer has the other one to itself.
LOAD_CPU, PEER_CPU = 0, 1


def oha():
    """The constant-rate load: the one in the path, else the one that was installed below the work folder."""
    for folder in [*os.environ.get("PATH", "").split(os.pathsep), os.path.join(CARGO, "bin")]:
        if os.access(os.path.join(folder, "oha"), os.X_OK):
            return os.path.join(folder, "oha")
    return None
