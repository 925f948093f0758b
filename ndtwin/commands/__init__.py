"""The commands, a module for each group. They import what they run when they run: `ndtwin --help` needs no torch."""
