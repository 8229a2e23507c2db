"""How far estimated occupancy is from the truth, which only a simulation knows."""

import os

# Its matrices are small: on a busy machine, threads for them cost more than they give.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
