"""From who somebody is to a pseudonym: canonical spelling, keys by purpose and period, and what the tracer alone can link."""
