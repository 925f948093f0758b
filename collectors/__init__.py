"""Devices → records: SNMP, NETCONF, IPFIX and measured path delay. No Kafka in here."""
