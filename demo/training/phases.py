"""How a training's steps are divided: small pictures first, which are cheap, and the full size last.

Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass

# Share of the steps, share of the full side, share of the batch.
_SHARES = ((0.58, 0.4, 1.0), (0.18, 0.6, 1.0), (0.24, 1.0, 0.5))
_MULTIPLE = 8  # of the sides: what matting needs


@dataclass(frozen=True)
class Phase:
    """Steps of one size: from `first_step` to before `end_step`, samples from number `first_sample`."""

    first_step: int
    end_step: int
    first_sample: int
    size: int
    batch: int


def divide(network: str, steps: int, size: int, batch: int) -> list[Phase]:
    """Plan a training.

    Args:
        network: `trimap`, which sees whole pictures and grows them; `matting` sees parts, of one size.
        steps: in all.
        size: the last phase's side in pixels.
        batch: the first phase's; the largest pictures come in half as many, or memory would be short.
    """
    shares = _SHARES if network == "trimap" else ((1.0, 1.0, 1.0),)
    phases: list[Phase] = []
    step = sample = 0
    done = 0.0
    for share, side, part in shares:
        done += share
        end = round(done * steps)
        rounded = max(_MULTIPLE, round(size * side / _MULTIPLE) * _MULTIPLE)
        phase = Phase(step, end, sample, rounded, max(1, round(batch * part)))
        phases.append(phase)
        sample += (end - step) * phase.batch
        step = end
    return phases
