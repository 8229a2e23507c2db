"""The boards, one module each, in the order of their links."""

from dashboards.boards import capacity, health, national, tracing, venue, wall

BOARDS = (wall.BOARD, venue.BOARD, tracing.BOARD, capacity.BOARD, health.BOARD, national.BOARD)
