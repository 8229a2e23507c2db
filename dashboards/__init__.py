"""Grafana boards as code: `python -m dashboards` (`make dashboards`) writes them as JSON into `dashboards/json/`.

Grafana reads the JSON only; nothing of this package runs beside the pipeline. What a board may do is held by
`tests/unit/test_dashboards.py`, and what its queries return by `tests/integration/test_dashboards.py`.
"""
