"""A module that a configuration names and that must not be imported for it."""

import lightning as L


class Callback(L.Callback):
    """Nothing."""
