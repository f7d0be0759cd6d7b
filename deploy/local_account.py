"""Stands for the AWS account where an endpoint runs on this machine: it has the runtime and nothing else."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from account import Account, translate
from deploy_error import Invalid

# boto3 signs what it sends, wherever that goes; the proxy does not look.
REGION, KEY = "us-east-1", "local"


class LocalAccount(Account):
    """What `smoke` needs of an account."""

    def __init__(self, runtime_url: str) -> None:
        """Nothing is called yet.

        Args:
            runtime_url: Where the proxy answers.

        Raises:
            Denied: where boto3's own settings in this shell do not hold together.
        """
        try:
            super().__init__(boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=KEY, region_name=REGION))
        except BotoCoreError as error:
            # Such as an AWS_PROFILE that is not there, over which an application would stumble as well.
            raise translate("session", error) from error
        self._runtime_url = runtime_url

    def client(self, service: str, region: str | None = None, config: Config | None = None) -> Any:
        """The runtime's client.

        Raises:
            Invalid: for any other service; so nothing of a real account is ever touched.
        """
        if service != "sagemaker-runtime":
            raise Invalid(f"a local endpoint has no {service}")
        return self._session.client(service, endpoint_url=self._runtime_url, config=config)
