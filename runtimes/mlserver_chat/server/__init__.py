"""The guard in front of MLServer: it bounds requests before MLServer reads them."""

from .install import install_guard

__all__ = ["install_guard"]
