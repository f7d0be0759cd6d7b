"""The figures of the model card: a block of Markdown between two marks, made from the record of a training.

Pure functions; what stands around the block was written by hand and is left alone.
"""

from __future__ import annotations

from typing import Any

_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"
_NETWORKS = {
    "trimap": "`checkpoint.safetensors`: U²-Net, small, three channels",
    "matting": "`checkpoint_2.safetensors`: FBA, small",
}


def update_card(card: str, record: dict[str, Any]) -> str:
    """Replace the block of a card; one that has none gets it at its end.

    Args:
        card: Markdown.
        record: `trainings`: a plan with `seconds` for each network; `scores`: see `evaluation`; `held_out`: the set.
    """
    block = f"{_BEGIN}\n{format_figures(record)}\n{_END}"
    if _BEGIN not in card or _END not in card:
        return f"{card.rstrip()}\n\n{block}\n".lstrip()
    before, rest = card.split(_BEGIN, 1)
    return f"{before}{block}{rest.split(_END, 1)[1]}"


def format_figures(record: dict[str, Any]) -> str:
    """Two tables: how each network was trained, and how far off both are on the held-out set."""
    lines = [
        "| file | steps | pictures | largest side | seed | precision | on | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network, training in record["trainings"].items():
        where = f"{training['device']}, {training['threads']} threads"
        lines.append(
            f"| {_NETWORKS[network]} | {training['steps']} | {training['samples']} | {training['size']} | {training['seed']} "
            f"| {training['precision']} | {where} | {training['seconds'] / 60:.0f} min |"
        )
    scores, held_out = record["scores"], record["held_out"]
    iou = ", ".join(f"{name} {scores[f'trimap_iou_{name}']:.3f}" for name in ("background", "unknown", "foreground"))
    lines += [
        "",
        f"Held out: {held_out['pictures']} pictures of {held_out['size']} x {held_out['size']}, seed {held_out['seed']}. "
        f"Trimap, intersection over union: {iou}.",
        "",
        "| alpha from | SAD (thousands) | MSE | gradient (thousands) |",
        "|---|---|---|---|",
    ]
    rows = {
        "one half wherever the true trimap is unknown, for comparison; MSE there": "half",
        "matting, given the true trimap; MSE where it is unknown": "matting",
        "both networks; MSE over the whole picture": "chain",
    }
    for text, name in rows.items():
        sad, mse, gradient = (scores[f"{name}_{measure}"] for measure in ("sad", "mse", "gradient"))
        lines.append(f"| {text} | {sad:.2f} | {mse:.4f} | {gradient:.2f} |")
    return "\n".join(lines)
