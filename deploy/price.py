"""What a deployment costs: AWS's price list where it can be reached, else the table of this folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from account import Account
from deploy_error import DeployError
from deploy_settings import DeploySettings
from instance_types import INSTANCE_TYPES, PRICES_AS_OF
from serving_settings import ROLLING

HOURS_A_MONTH = 730
# Where AWS answers for the price list.
_PRICE_LIST_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Price:
    """What the instances cost, in USD. Requests, storage and traffic are not in it.

    Attributes:
        hour: For the number of instances that the settings begin with; None: the price is not known.
        most: For the most instances that autoscaling may start.
        update: While an update has two fleets.
        source: Whose prices these are.
    """

    hour: float | None
    most: float | None
    update: float | None
    source: str

    @property
    def month(self) -> float | None:
        """For 730 hours."""
        return None if self.hour is None else self.hour * HOURS_A_MONTH

    def lines(self) -> tuple[str, ...]:
        """For the reader of a plan."""
        if self.hour is None or self.month is None or self.update is None or self.most is None:
            return (f"price: not known ({self.source}): see AWS's price list before you say yes",)
        text = (
            f"price: {self.hour:.2f} USD an hour, {self.month:,.0f} USD a month; {self.update:.2f} an hour while an update runs"
        )
        scaled = () if self.most == self.hour else (f"price at most, by autoscaling: {self.most:.2f} USD an hour",)
        return (f"{text} ({self.source})", *scaled)


def estimate(settings: DeploySettings, instance_type: str, prices: Mapping[str, float], source: str) -> Price:
    """Work out the price of a deployment on a type.

    Args:
        settings: Numbers of instances.
        instance_type: This one of the settings' types.
        prices: USD an hour for one instance, by type.
        source: Whose prices.
    """
    shadow = settings.shadow
    types = {instance_type} | ({shadow.type or instance_type} if shadow else set())
    if not types <= set(prices):
        return Price(None, None, None, f"no price of {', '.join(sorted(types - set(prices)))}")
    beside = prices[shadow.type or instance_type] * shadow.count if shadow else 0.0
    one = prices[instance_type]
    hour = one * settings.instance.count + beside
    most = one * (settings.autoscaling.max_count if settings.autoscaling else settings.instance.count) + beside
    # Blue/green has the whole fleet twice; a rolling update one batch more.
    share = settings.update.percent / 100 if settings.update.strategy == ROLLING else 1.0
    return Price(hour, most, hour * (1 + share), source)


def find_prices(account: Account, region: str, types: tuple[str, ...]) -> tuple[dict[str, float], str]:
    """Ask AWS for prices; fall back to the table for all of them, so that two sources are never mixed.

    Returns:
        USD an hour for one instance by type, and whose prices they are.
    """
    try:
        live = {name: price for name in types if (price := live_price(account, region, name)) is not None}
    except DeployError:
        live = {}
    if set(live) == set(types):
        return live, f"AWS's price list, {region}"
    table = {name: kind.usd_per_hour for name, kind in INSTANCE_TYPES.items() if kind.usd_per_hour is not None}
    return table, f"table of {PRICES_AS_OF}, us-east-1; second-hand"


def live_price(account: Account, region: str, instance_type: str) -> float | None:
    """Ask AWS's price list for an instance of a real-time endpoint; None where it does not know the type.

    Raises:
        DeployError: where it cannot be reached or refuses.
    """
    filters = {"instanceName": instance_type, "regionCode": region, "component": "Hosting"}
    answer = account.call_in(
        _PRICE_LIST_REGION,
        "pricing",
        "get_products",
        ServiceCode="AmazonSageMaker",
        Filters=[{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()],
    )
    for text in answer["PriceList"]:
        for term in json.loads(text).get("terms", {}).get("OnDemand", {}).values():
            for dimension in term["priceDimensions"].values():
                price = float(dimension["pricePerUnit"].get("USD", 0))
                if price > 0:
                    return price
    return None
