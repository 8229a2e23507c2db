"""What readers see over HTTP: the API, the live page, metrics and probes, on one port. Aggregates only, nobody's visits."""
