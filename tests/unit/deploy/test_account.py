from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    NoCredentialsError,
    NoRegionError,
    ReadTimeoutError,
    UnauthorizedSSOTokenError,
)

from account import is_already_there, is_not_found, open_session, tags_of, translate
from account_reading import read_bucket
from deploy_error import Denied, DeployError, Invalid, NoCapacity, TimedOut
from desired import scope_of
from unit.deploy.deployments import IDENTITY, StubbedAccount, settings


def refused(code: str, message: str = "message.") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "CreateEndpoint")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refused("AccessDeniedException"), Denied),
        (refused("ExpiredToken"), Denied),
        (refused("UnrecognizedClientException"), Denied),
        (refused("ValidationException", "User x is not authorized to perform: iam:PassRole"), Denied),
        (refused("ResourceLimitExceeded", "The account-level service limit is 0 Instances"), Denied),
        (refused("ValidationException", "InsufficientInstanceCapacity"), NoCapacity),
        (refused("ThrottlingException", "Rate exceeded"), TimedOut),
        (refused("ValidationException"), Invalid),
        (NoCredentialsError(), Denied),
        (NoRegionError(), Invalid),
        (ReadTimeoutError(endpoint_url="x"), TimedOut),
        (ConnectTimeoutError(endpoint_url="x"), TimedOut),
    ],
)
def test_each_of_awss_errors_has_its_class_and_one_line(error: Exception, kind: type[DeployError]) -> None:
    translated = translate("sagemaker.create_endpoint", error)
    assert type(translated) is kind
    assert "\n" not in str(translated)


def test_what_is_not_there_and_what_is_there_already() -> None:
    assert is_not_found(refused("ValidationException", 'Could not find endpoint "arn".'))
    assert is_not_found(refused("NoSuchEntity"))
    assert not is_not_found(refused("ValidationException", "Invalid name"))
    assert not is_not_found(None)
    assert is_already_there(refused("ValidationException", "Cannot create already existing model"))
    assert is_already_there(refused("EntityAlreadyExists"))
    assert not is_already_there(refused("AccessDenied"))


def test_a_missing_region_and_profile_are_said() -> None:
    stubbed = StubbedAccount()
    stubbed.region_name = None  # type: ignore[assignment]
    with pytest.raises(Invalid, match="no region: set AWS_REGION"):
        stubbed.account.identity()
    with pytest.raises(Denied, match=r"name one of ~/\.aws/config"):
        open_session("no-such-profile", None)


def test_find_gives_none_for_what_is_not_there_only() -> None:
    stubbed = StubbedAccount()
    iam = stubbed.stub("iam")
    iam.add_client_error("get_role", "NoSuchEntity")
    assert stubbed.account.find("iam", "get_role", RoleName="x") is None
    iam.add_client_error("get_role", "AccessDenied")
    with pytest.raises(Denied):
        stubbed.account.find("iam", "get_role", RoleName="x")


def test_tags_of_any_service() -> None:
    assert tags_of([{"Key": "a", "Value": "1"}, {"key": "b", "value": "2"}]) == {"a": "1", "b": "2"}


def test_what_is_wrong_with_credentials_or_with_aws_is_not_called_a_policy() -> None:
    assert "see that this machine's clock is right" in str(translate("sts.x", refused("InvalidSignatureException")))
    assert "get new credentials" in str(translate("sts.x", refused("ExpiredToken")))
    expired = translate("sts.x", UnauthorizedSSOTokenError())
    assert type(expired) is Denied
    assert "SSO session" in str(expired)
    failed = ClientError({"Error": {"Code": "InternalFailure"}, "ResponseMetadata": {"HTTPStatusCode": 500}}, "X")
    assert type(translate("sagemaker.x", failed)) is TimedOut


def test_the_bucket_must_be_of_this_account_unless_the_settings_name_it() -> None:
    for own, owner in ((settings(), {"ExpectedBucketOwner": "123456789012"}), (settings(bucket="theirs"), {})):
        scope, stubbed = scope_of(own, IDENTITY), StubbedAccount()
        s3 = stubbed.stub("s3")
        s3.add_client_error("head_bucket", "403", "Forbidden", 403, expected_params={"Bucket": scope.bucket, **owner})
        with pytest.raises(Denied, match=f"bucket {scope.bucket} is another account's, or you may not see it"):
            read_bucket(stubbed.account, scope)
        s3.assert_no_pending_responses()
