"""IPFIX (RFC 7011): sans-IO decoder, information elements as a table, aggregation into time bins."""
