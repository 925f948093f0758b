"""The page an operator keeps open: the network beside its twin, moving by itself."""
