"""A real network in network namespaces: FRR, net-snmp, lldpd, netconfd, softflowd, and packets that queue."""
