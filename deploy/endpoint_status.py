"""How a deployment is: what `create_endpoint.py status` says, as data and as lines. Pure."""

from __future__ import annotations

from typing import Any

from account_state import AccountState
from desired import FOLLOWS


def status_of(state: AccountState, name: str) -> dict[str, Any]:
    """Put it together for JSON.

    Args:
        state: What there is.
        name: The endpoint's.
    """
    endpoint = state.endpoint
    images = {model.name: model.request.get("PrimaryContainer", {}).get("Image", "") for model in state.models}
    return {
        "name": name,
        "status": endpoint.status if endpoint else None,
        "reason": endpoint.reason if endpoint else "",
        "config": endpoint.config if endpoint else None,
        "wanted": endpoint.wanted if endpoint else None,
        "variants": [
            {
                "name": variant["VariantName"],
                "instances": variant.get("CurrentInstanceCount"),
                "wanted": variant.get("DesiredInstanceCount"),
            }
            for variant in (endpoint.variants if endpoint else ())
        ],
        "versions": [
            {
                "config": config.name,
                "created": config.created.isoformat(),
                "instance_type": config.instance_type,
                "images": [images.get(model, "") for model in config.models],
                "follows": config.tags.get(FOLLOWS),
            }
            for config in state.configs
        ],
        "autoscaling": None
        if state.target is None
        else {"min": state.target["MinCapacity"], "max": state.target["MaxCapacity"]},
        "alarms": {alarm: found.get("StateValue", "") for alarm, found in sorted((state.alarms or {}).items())},
    }


def status_lines(status: dict[str, Any]) -> list[str]:
    """The same for people."""
    if status["status"] is None:
        lines = [f"there is no endpoint {status['name']}"]
    else:
        on_its_way = "" if status["wanted"] == status["config"] else f", on its way to {status['wanted']}"
        lines = [f"endpoint {status['name']}: {status['status']} with {status['config']}{on_its_way}"]
    if status["reason"]:
        lines.append(f"  SageMaker: {status['reason']}")
    lines.extend(
        f"  variant {entry['name']}: {entry['instances']} of {entry['wanted']} instances" for entry in status["variants"]
    )
    if status["autoscaling"]:
        lines.append(f"  autoscaling: {status['autoscaling']['min']} to {status['autoscaling']['max']} instances")
    for version in status["versions"]:
        mark = "*" if version["config"] == status["config"] else " "
        follows = f", follows {version['follows']}" if version["follows"] else ""
        lines.append(f"{mark} {version['config']}  {version['created'][:19]}  {version['instance_type']}{follows}")
    lines.extend(f"  alarm {name}: {value}" for name, value in status["alarms"].items() if value == "ALARM")
    return lines
