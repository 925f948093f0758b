"""SNMP: two engines behind one interface, OIDs as tables, pure readers from varbinds to records."""
