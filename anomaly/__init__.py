"""Where the network and its twin part company, and where to look first. Pure: no I/O."""
