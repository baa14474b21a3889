"""D4RL files, as `environments.formats.d4rl` reads and writes them."""

from environments.formats.d4rl import episodes, read_d4rl, write_d4rl

__all__ = ["episodes", "read_d4rl", "write_d4rl"]
