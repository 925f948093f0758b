"""The HTTP API: what is known about every network, in memory, for people and programs."""
