"""A plan for people and for machines. Pure."""

from __future__ import annotations

from typing import Any

from deployment import Proposal
from plan import Plan

_SHOWN = 110


def plan_lines(plan: Plan) -> list[str]:
    """A plan for people: each call with what it is about, and why."""
    lines = [f"plan for endpoint {plan.endpoint}" + (f" on {plan.instance_type}" if plan.instance_type else "")]
    for number, action in enumerate(plan.actions, 1):
        given = ", ".join(
            f"{key}={text}" for key, value in action.request.items() if (text := _text(value)) not in ("", action.why)
        )
        shown = given if len(given) <= _SHOWN else given[:_SHOWN] + "…"
        lines.append(f"{number:3}. {action.service}.{action.operation}({shown})")
        lines.append(f"       {action.why}")
    if not plan.changes:
        lines.append("no change")
    return [*lines, *(f"note: {note}" for note in plan.notes)]


def _text(value: Any) -> str:
    """A value where it is short enough to be read in one line: tables are for `--json`."""
    if isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value):
        return " ".join(value)
    return str(value) if isinstance(value, str | int | float) and not str(value).startswith("{") else ""


def plan_as_data(plan: Plan) -> dict[str, Any]:
    """A plan for machines: every call with its whole request."""
    actions = [{"service": a.service, "operation": a.operation, "request": dict(a.request), "why": a.why} for a in plan.actions]
    return {
        "endpoint": plan.endpoint,
        "config": plan.config,
        "instance_type": plan.instance_type,
        "actions": actions,
        "notes": list(plan.notes),
    }


def proposal_as_data(proposal: Proposal) -> dict[str, Any]:
    """A proposal for machines."""
    price = proposal.price
    prices = {
        "hour": price.hour,
        "month": price.month,
        "at_most": price.most,
        "while_updating": price.update,
        "source": price.source,
    }
    return {**plan_as_data(proposal.plan), "warnings": list(proposal.warnings), "price_usd": prices}
