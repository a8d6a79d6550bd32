"""Azurite for tests: see `local_host.azurite`."""

from local_host.azurite import ACCOUNT, KEY, Azurite

__all__ = ["ACCOUNT", "KEY", "Azurite"]
