"""The gateway: scans with raw identifiers come in over HTTP, pseudonymised scans go out to Kafka."""
