"""TaskHub: a self-hosted job server in one process."""

__version__ = "0.1.0"
