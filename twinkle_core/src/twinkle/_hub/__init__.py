"""The parent of components from hubs: ``twinkle._hub.sha256_<digest>``.

There is nothing in it. Importing it sees to it that the finder is there, so that a class from a hub unpickles in a new process,
which has to be allowed to load it as this one had.
"""

from __future__ import annotations

from twinkle.component import default_registry
from twinkle_registry.hub_package import install_finder

install_finder(lambda digest: default_registry().stored(digest))
