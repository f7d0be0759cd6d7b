from __future__ import annotations

from typing import Any

import pytest

from training.model_card import update_card


@pytest.fixture
def record() -> dict[str, Any]:
    scores = {f"trimap_iou_{name}": 0.5 for name in ("background", "unknown", "foreground")}
    scores |= {f"{name}_{of}": 0.25 for name in ("half", "matting", "chain") for of in ("sad", "mse", "gradient")}
    training = {"steps": 77, "samples": 308, "size": 320, "seed": 1, "precision": "float32"}
    training |= {"device": "cpu", "threads": 2, "seconds": 600}
    return {"trainings": {"trimap": training}, "scores": scores, "held_out": {"pictures": 3, "size": 64, "seed": 9}}


def test_figures_take_the_place_of_the_old_ones(record: dict[str, Any]) -> None:
    card = update_card("# Card\n\nBefore.\n", record)
    record["trainings"]["trimap"]["steps"] = 88
    card = update_card(card + "\nAfter.\n", record)
    assert "| 88 | 308 |" in card
    assert "| 77 |" not in card
    assert card.startswith("# Card\n\nBefore.\n")
    assert card.endswith("\nAfter.\n")


def test_figures_are_there(record: dict[str, Any]) -> None:
    card = update_card("", record)
    assert "foreground 0.500" in card
    assert "| 0.25 | 0.2500 | 0.25 |" in card
    assert "10 min" in card
