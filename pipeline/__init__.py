"""The check-in pipeline: exact streaming analytics for QR check-ins at public venues."""

__version__ = "0.1.0"
