"""The sets of session tokens: how many sessions, how many tokens of each."""

import os

from places import MATERIAL

FEW, FRESH, MANY = "few-1000x1", "fresh-1000x100", "many-100000x1"


def file(name):
    return os.path.join(MATERIAL, f"{name}.txt")


def argument(name):
    """As material.py takes it."""
    return name.replace("-", "=", 1)
