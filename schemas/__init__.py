"""The messages as pydantic models, and their exported JSON Schema and AsyncAPI documents."""
