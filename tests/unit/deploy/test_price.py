from __future__ import annotations

import json

import pytest

from price import estimate, find_prices
from quota import find_quotas
from unit.deploy.deployments import StubbedAccount, settings

PRICES = {"ml.g6.12xlarge": 5.0, "ml.g5.12xlarge": 7.0}


def product(price: str) -> str:
    return json.dumps({"terms": {"OnDemand": {"t": {"priceDimensions": {"d": {"pricePerUnit": {"USD": price}}}}}}})


def test_an_hour_a_month_and_twice_that_while_an_update_runs() -> None:
    price = estimate(settings(instance={"count": 2}), "ml.g6.12xlarge", PRICES, "table")
    assert (price.hour, price.month, price.update, price.most) == (10.0, 7300.0, 20.0, 10.0)
    assert price.lines() == ("price: 10.00 USD an hour, 7,300 USD a month; 20.00 an hour while an update runs (table)",)


def test_autoscaling_a_shadow_and_rolling_updates_count() -> None:
    scaled = settings(autoscaling={"min": 1, "max": 4}, shadow={"type": "ml.g5.12xlarge"})
    price = estimate(scaled, "ml.g6.12xlarge", PRICES, "table")
    assert (price.hour, price.most) == (12.0, 27.0)
    assert price.lines()[1] == "price at most, by autoscaling: 27.00 USD an hour"
    rolling = settings(update={"strategy": "rolling", "percent": 20}, instance={"count": 5})
    assert estimate(rolling, "ml.g6.12xlarge", PRICES, "table").update == pytest.approx(30.0)


def test_a_price_that_is_not_known_is_not_made_up() -> None:
    price = estimate(settings(), "ml.g7.12xlarge", PRICES, "table")
    assert price.hour is price.month is None
    assert price.lines()[0].startswith("price: not known (no price of ml.g7.12xlarge)")


def test_the_price_list_is_asked_first_and_never_mixed_with_the_table() -> None:
    stubbed = StubbedAccount()
    pricing = stubbed.stub("pricing")
    for price in ("0.0000000000", "6.5"):
        pricing.add_response("get_products", {"PriceList": [product("0"), product(price)]})
    assert find_prices(stubbed.account, "eu-central-1", ("ml.g6.12xlarge", "ml.g5.12xlarge"))[1].startswith("table of")
    pricing.add_response("get_products", {"PriceList": [product("0"), product("6.5")]})
    assert find_prices(stubbed.account, "eu-central-1", ("ml.g6.12xlarge",)) == (
        {"ml.g6.12xlarge": 6.5},
        "AWS's price list, eu-central-1",
    )
    pricing.add_client_error("get_products", "AccessDeniedException")
    prices, source = find_prices(stubbed.account, "eu-central-1", ("ml.g6.12xlarge",))
    assert (prices["ml.g6.12xlarge"], source) == (5.752, "table of 2026-11, us-east-1; second-hand")


def test_quotas_by_their_names_page_by_page() -> None:
    stubbed = StubbedAccount()
    quotas = stubbed.stub("service-quotas")
    page = [{"QuotaName": "ml.g5.12xlarge for training job usage", "Value": 9.0}]
    quotas.add_response("list_service_quotas", {"Quotas": page, "NextToken": "n"})
    quotas.add_response("list_service_quotas", {"Quotas": [{"QuotaName": "ml.g5.12xlarge for endpoint usage", "Value": 2.0}]})
    assert find_quotas(stubbed.account, ["ml.g5.12xlarge", "ml.g6.12xlarge"]) == {"ml.g5.12xlarge": 2.0}
    quotas.add_client_error("list_service_quotas", "AccessDeniedException")
    assert find_quotas(stubbed.account, ["ml.g5.12xlarge"]) == {}
