"""The race: the same job done by this pipeline, by other stream processors, and by ClickHouse alone.

`job`, `decoding` and `store` are what the Python peers share, so that what differs between them is the framework.
"""
