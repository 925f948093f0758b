"""Active delay by STAMP (RFC 8762, RFC 8972): packets, sessions, pace, sockets."""
