"""What a fork may leave out: each folder stands on the core alone, and comes off with ``rm -r``."""
