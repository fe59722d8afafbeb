"""What several workers return is put together as if one had returned it."""

from __future__ import annotations

import torch

from twinkle_plugin_transformers.passes import collect_outputs


def test_rows_of_all_workers_come_in_order():
    joined = collect_outputs([{"logps": torch.full((2, 3), 1.0)}, {"logps": torch.full((1, 5), 2.0)}])
    assert joined["logps"].tolist() == [[1.0] * 3 + [0.0] * 2] * 2 + [[2.0] * 5]


def test_a_worker_without_rows_counts_for_nothing():
    results = [{"logps": torch.ones(1, 2), "loss": torch.tensor(3.0)}, {"loss": 0.0}]
    joined = collect_outputs(results)
    assert float(joined["loss"]) == 3.0
    assert joined["logps"].shape == (1, 2)
    assert set(results[0]) == {"logps", "loss"}
