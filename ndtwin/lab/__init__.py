"""The lab: a live network on this machine, devices that speak the real protocols and faults on command."""
