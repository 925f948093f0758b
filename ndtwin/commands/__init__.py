"""The commands, a module for each group. What they run they import when they run: --help needs no torch."""
