"""One seed for every source of random numbers in this process: Python, numpy and torch.

Seeds what is imported and imports nothing; so whoever brings torch in calls it again. Knows nothing of ranks: every rank gets
the same seed, so that all of them start from the same weights.
"""

from __future__ import annotations

import os
import random
import sys


class Seeds:
    """The seed of one run, given to each library once, as soon as it is there."""

    def __init__(self, seed: int | None, full_determinism: bool = False) -> None:
        self.seed = seed
        self.full_determinism = full_determinism
        self._done: set[str] = set()
        if full_determinism:
            # cuBLAS is deterministic only with a fixed workspace, and reads this when it starts (cuBLAS manual, 2.1.4).
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def apply(self) -> None:
        """Seed the libraries that are imported now and weren't the last time."""
        for name, apply in (("random", self._python), ("numpy", self._numpy), ("torch", self._torch)):
            if sys.modules.get(name) is not None and name not in self._done:
                self._done.add(name)
                apply()

    def _python(self) -> None:
        if self.seed is not None:
            random.seed(self.seed)

    def _numpy(self) -> None:
        import numpy as np

        if self.seed is not None:
            np.random.seed(self.seed % 2**32)

    def _torch(self) -> None:
        import torch

        if self.seed is not None:
            torch.manual_seed(self.seed)
        if self.full_determinism:
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
