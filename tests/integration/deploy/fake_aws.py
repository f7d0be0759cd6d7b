"""AWS for tests: moto's server, and in front of it what moto lacks or does otherwise than AWS.

moto keeps IAM, S3, ECR, models, alarms, logs, autoscaling. Here are endpoints and their configurations with every field (moto
drops most and takes no new instance types): duplicates are refused, statuses follow one another, updates succeed, fail and
roll back, nothing that is in use can be deleted. Service Quotas, the price list, an image's configuration, and the invocation
itself are here too. Failures are ordered by setting an attribute.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT, REGION = "123456789012", "eu-central-1"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
_ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
# How an order ends, as the statuses that are then seen one after another.
_WAYS = {
    "made": ("Creating", "Creating", "InService"),
    "failed": ("Creating", "Failed"),
    "updated": ("Updating", "Updating", "InService"),
    "rolled back": ("Updating", "RollingBack", "InService"),
    "rollback failed": ("Updating", "RollingBack", "UpdateRollbackFailed"),
}


class Refused(Exception):
    """AWS's answer to a request that it does not carry out."""

    def __init__(self, code: str, message: str, status: int = 400, **details: Any) -> None:
        super().__init__(message)
        self.code, self.status = code, status
        self.body = {"__type": code, "message": message, "Message": message, **details}


@dataclass
class Endpoint:
    """An endpoint on its way: each look at it takes the next status."""

    config: str
    wanted: str
    tags: dict[str, str]
    way: deque[str]
    way_back: bool = False
    reason: str = ""
    status: str = ""


@dataclass
class FakeAws:
    """All state of the shim. What is set between calls decides what happens next.

    Attributes:
        outcomes: How the next creations and updates end; those of `_WAYS`, or "stuck". Empty: well.
        reason: The FailureReason of those that do not end well.
        no_capacity: Instance types that there are none of.
        denied: Actions that are refused, such as `sagemaker.CreateEndpoint`.
        quota: For any instance type.
        prices: USD an hour by instance type; empty: the price list cannot be read.
        replicas: Of the container; `silent` never answer.
        invocation_error: Status and text of the container in place of answers.
        image_config: What an image is made of.
        on_build: What a build does, given its request.
        build_status: How a build ends.
        young_roles: So many models are refused because their role is not known yet, with `young_role_text`.
        hold: Called with each action before it is done.
        calls: What has been called.
    """

    outcomes: deque[str] = field(default_factory=deque)
    reason: str = "The primary container for production variant main did not pass the ping health check."
    no_capacity: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    quota: float = 8.0
    prices: dict[str, float] = field(default_factory=dict)
    replicas: int = 4
    silent: set[int] = field(default_factory=set)
    invocation_error: tuple[int, str] | None = None
    image_config: dict[str, Any] = field(default_factory=lambda: {"architecture": "amd64", "config": {}})
    on_build: Callable[[dict[str, Any]], None] = lambda _: None
    build_status: str = "SUCCEEDED"
    young_roles: int = 0
    young_role_text: str = "Could not assume role. Please ensure that the role exists"
    hold: Callable[[str], None] = lambda _: None
    calls: list[str] = field(default_factory=list)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    _builders: list[threading.Thread] = field(default_factory=list)
    _turn: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _moto: Any = None

    @property
    def writes(self) -> list[str]:
        """The calls that change something."""
        reading = ("Get", "Describe", "List", "Head", "Filter", "Batch", "GET", "HEAD", "Invoke")
        return [call for call in self.calls if not call.split(".", 1)[1].startswith(reading)]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """WSGI."""
        if self._moto is None:
            self._moto = DomainDispatcherApplication(create_backend_app)
        service, action = _action(environ)
        try:
            if environ["PATH_INFO"].startswith("/blobs/"):
                return _answer(start_response, self.image_config)
            self.calls.append(f"{service}.{action}")
            self.hold(f"{service}.{action}")
            if f"{service}.{action}" in self.denied:
                raise Refused("AccessDeniedException", f"User is not authorized to perform: {service}:{action}")
            with self._lock:
                if environ["PATH_INFO"].startswith("/endpoints/"):
                    return self._invoke(environ, start_response)
                handler = getattr(self, f"_{service.replace('-', '_')}_{action}", None)
                if handler is None:
                    answered: Iterable[bytes] = self._moto(environ, start_response)
                    return answered
                body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                answer = handler(json.loads(body or b"{}"), environ)
                if answer is not None:
                    return _answer(start_response, answer)
                environ["wsgi.input"] = _Body(body)
                answered = self._moto(environ, start_response)
                return answered
        except Refused as refused:
            if service in ("iam", "sts"):
                text = f"<ErrorResponse><Error><Code>{refused.code}</Code><Message>{refused}</Message></Error></ErrorResponse>"
                start_response(f"{refused.status} Refused", [("Content-Type", "text/xml")])
                return [text.encode()]
            return _answer(start_response, refused.body, refused.status, refused.code)

    # Models: moto's, with what it does not check.

    def _sagemaker_CreateModel(self, request: dict[str, Any], environ: dict[str, Any]) -> None:
        if self.young_roles:
            self.young_roles -= 1
            raise Refused("ValidationException", self.young_role_text)
        if self._moto_has_model(request["ModelName"]):
            raise Refused("ValidationException", f"Cannot create already existing model {_ARN}:model/{request['ModelName']}.")

    def _sagemaker_DeleteModel(self, request: dict[str, Any], environ: dict[str, Any]) -> None:
        for name, config in self.configs.items():
            variants = (*config["ProductionVariants"], *config.get("ShadowProductionVariants", ()))
            if any(variant["ModelName"] == request["ModelName"] for variant in variants):
                raise Refused("NotAsAwsLikesIt", f"{request['ModelName']} was deleted while {name} names it")

    @staticmethod
    def _moto_has_model(name: str) -> bool:
        from moto.sagemaker.models import sagemaker_backends

        return name in sagemaker_backends[ACCOUNT][REGION]._models

    # Endpoint configurations.

    def _sagemaker_CreateEndpointConfig(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        name = request["EndpointConfigName"]
        if name in self.configs:
            raise Refused("ValidationException", f"Cannot create already existing endpoint configuration {name}.")
        for variant in request["ProductionVariants"]:
            if not self._moto_has_model(variant["ModelName"]):
                raise Refused("ValidationException", f"Could not find model {variant['ModelName']}.")
        # Apart in time even where they are made within one tick of the clock.
        created = time.time() + len(self.configs) * 0.01
        arn = f"{_ARN}:endpoint-config/{name}"
        self.configs[name] = request | {"EndpointConfigArn": arn, "CreationTime": created}
        return {"EndpointConfigArn": arn}

    def _sagemaker_DescribeEndpointConfig(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        config = self._config(request["EndpointConfigName"])
        return {key: value for key, value in config.items() if key != "Tags"}

    def _sagemaker_ListEndpointConfigs(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        keys = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
        found = [config for name, config in self.configs.items() if request.get("NameContains", "") in name]
        return {"EndpointConfigs": [{key: config[key] for key in keys} for config in found]}

    def _sagemaker_DeleteEndpointConfig(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        name = request["EndpointConfigName"]
        self._config(name)
        for endpoint in self.endpoints.values():
            if name in (endpoint.config, endpoint.wanted):
                # AWS would do it, and the endpoint could never be updated again.
                raise Refused("NotAsAwsLikesIt", f"{name} was deleted while it is served")
        del self.configs[name]
        return {}

    def _config(self, name: str) -> dict[str, Any]:
        if name not in self.configs:
            raise Refused("ValidationException", f'Could not find endpoint configuration "{_ARN}:endpoint-config/{name}".')
        return self.configs[name]

    # Endpoints.

    def _sagemaker_CreateEndpoint(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        name, config = request["EndpointName"], request["EndpointConfigName"]
        self._config(config)
        if name in self.endpoints:
            raise Refused("ValidationException", f'Cannot create already existing endpoint "{_ARN}:endpoint/{name}".')
        endpoint = Endpoint(config, config, _tags(request.get("Tags", ())), deque())
        self.endpoints[name] = endpoint
        self._start(endpoint, "made", "failed")
        return {"EndpointArn": f"{_ARN}:endpoint/{name}"}

    def _sagemaker_UpdateEndpoint(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        name, config = request["EndpointName"], request["EndpointConfigName"]
        endpoint = self._endpoint(name)
        self._config(config)
        if endpoint.status not in ("InService", "UpdateRollbackFailed"):
            raise Refused("ValidationException", f'Cannot update in-progress endpoint "{_ARN}:endpoint/{name}".')
        scaled = self._scaled(name)
        if scaled and self._type(config) != self._type(endpoint.config):
            raise Refused("ValidationException", "the variant is configured with autoscaling: deregister it first")
        if scaled and not request.get("RetainAllVariantProperties"):
            raise Refused("NotAsAwsLikesIt", "an update of an autoscaled endpoint resets its number of instances")
        endpoint.wanted = config
        self._start(endpoint, "updated", "rolled back")
        return {"EndpointArn": f"{_ARN}:endpoint/{name}"}

    def _sagemaker_DescribeEndpoint(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        name = request["EndpointName"]
        endpoint = self._endpoint(name)
        self._step(name, endpoint)
        if name not in self.endpoints:
            raise Refused("ValidationException", f'Could not find endpoint "{_ARN}:endpoint/{name}".')
        moving = endpoint.status in ("Updating", "RollingBack")
        pending = {"PendingDeploymentSummary": {"EndpointConfigName": endpoint.wanted}} if moving else {}
        failed = {"FailureReason": endpoint.reason} if endpoint.reason and not moving else {}
        variants = self.configs[endpoint.config]["ProductionVariants"]
        return {
            "EndpointName": name,
            "EndpointArn": f"{_ARN}:endpoint/{name}",
            "EndpointConfigName": endpoint.config,
            "EndpointStatus": endpoint.status,
            "CreationTime": time.time(),
            "LastModifiedTime": time.time(),
            "ProductionVariants": [
                {
                    "VariantName": variant["VariantName"],
                    "CurrentInstanceCount": variant["InitialInstanceCount"],
                    "DesiredInstanceCount": variant["InitialInstanceCount"],
                }
                for variant in variants
            ],
            **pending,
            **failed,
        }

    def _sagemaker_ListEndpoints(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        times = {"CreationTime": time.time(), "LastModifiedTime": time.time()}
        return {
            "Endpoints": [
                {"EndpointName": name, "EndpointArn": f"{_ARN}:endpoint/{name}", "EndpointStatus": endpoint.status, **times}
                for name, endpoint in self.endpoints.items()
            ]
        }

    def _sagemaker_DeleteEndpoint(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        endpoint = self._endpoint(request["EndpointName"])
        if endpoint.status in ("Creating", "Updating", "RollingBack"):
            raise Refused("ValidationException", "Cannot delete in-progress endpoint")
        endpoint.way, endpoint.status = deque(["Deleting", "gone"]), "Deleting"
        return {}

    def _endpoint(self, name: str) -> Endpoint:
        if name not in self.endpoints:
            raise Refused("ValidationException", f'Could not find endpoint "{_ARN}:endpoint/{name}".')
        return self.endpoints[name]

    def _start(self, endpoint: Endpoint, good: str, bad: str) -> None:
        outcome = self.outcomes.popleft() if self.outcomes else good
        endpoint.reason = "" if outcome == good else self.reason
        if self._type(endpoint.wanted) in self.no_capacity:
            outcome, endpoint.reason = (
                bad,
                "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error.",
            )
        endpoint.way_back = outcome != good
        endpoint.way = deque([_WAYS[good][0]] * 100_000 if outcome == "stuck" else _WAYS[outcome])
        endpoint.status = endpoint.way[0]

    def _step(self, name: str, endpoint: Endpoint) -> None:
        if not endpoint.way:
            return
        endpoint.status = endpoint.way.popleft()
        if endpoint.status == "gone":
            del self.endpoints[name]
        if not endpoint.way and not endpoint.way_back:
            endpoint.config = endpoint.wanted
        elif not endpoint.way:
            endpoint.wanted = endpoint.config

    def _type(self, config: str) -> str:
        return str(self.configs[config]["ProductionVariants"][0]["InstanceType"])

    @staticmethod
    def _scaled(name: str) -> bool:
        targets = applicationautoscaling_backends[ACCOUNT][REGION].targets
        return any(f"endpoint/{name}/" in resource for by_resource in targets.values() for resource in by_resource)

    # Tags of both.

    def _tagged(self, arn: str) -> dict[str, str] | None:
        kind, _, name = arn.rpartition(":")[2].partition("/")
        if kind == "endpoint":
            return self._endpoint(name).tags
        if kind == "endpoint-config":
            config = self._config(name)
            config["Tags"] = _tags(config.get("Tags", ())) if isinstance(config.get("Tags", ()), list) else config["Tags"]
            tags: dict[str, str] = config["Tags"]
            return tags
        return None

    def _sagemaker_ListTags(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any] | None:
        tags = self._tagged(request["ResourceArn"])
        return None if tags is None else {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _sagemaker_AddTags(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any] | None:
        tags = self._tagged(request["ResourceArn"])
        if tags is None:
            return None
        tags.update(_tags(request["Tags"]))
        return {"Tags": request["Tags"]}

    # What moto lacks altogether.

    def _servicequotas_ListServiceQuotas(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        types = ("ml.g4dn.12xlarge", "ml.g5.12xlarge", "ml.g6.12xlarge")
        return {"Quotas": [{"QuotaName": f"{name} for endpoint usage", "Value": self.quota} for name in types]}

    def _pricing_GetProducts(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        wanted = next(entry["Value"] for entry in request["Filters"] if entry["Field"] == "instanceName")
        if wanted not in self.prices:
            raise Refused("AccessDeniedException", "not authorized to perform: pricing:GetProducts")
        dimension = {"pricePerUnit": {"USD": str(self.prices[wanted])}}
        return {"PriceList": [json.dumps({"terms": {"OnDemand": {"a": {"priceDimensions": {"b": dimension}}}}})]}

    def _ecr_GetDownloadUrlForLayer(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        url = f"http://{environ['HTTP_HOST']}/blobs/{request['layerDigest']}"
        return {"downloadUrl": url, "layerDigest": request["layerDigest"]}

    def _codebuild_StartBuild(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        # Not from within a request: the build makes requests of its own.
        builder = threading.Thread(target=self.on_build, args=(request,))
        builder.start()
        self._builders.append(builder)
        return {"build": {"id": f"{request['projectName']}:1", "buildStatus": "IN_PROGRESS"}}

    def _codebuild_BatchGetBuilds(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        busy = any(builder.is_alive() for builder in self._builders)
        status = "IN_PROGRESS" if busy else self.build_status
        phases = [{"phaseType": "PRE_BUILD", "phaseStatus": "FAILED" if status == "FAILED" else "SUCCEEDED"}]
        return {"builds": [{"id": request["ids"][0], "buildStatus": status, "currentPhase": "BUILD", "phases": phases}]}

    def _sagemaker_CreateTransformJob(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        return {"TransformJobArn": f"{_ARN}:transform-job/{request['TransformJobName']}"}

    def _sagemaker_DescribeTransformJob(self, request: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
        outcome = self.outcomes.popleft() if self.outcomes else "Completed"
        failed = {"FailureReason": self.reason} if outcome == "Failed" else {}
        return {"TransformJobName": request["TransformJobName"], "TransformJobStatus": outcome, **failed}

    def _invoke(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        name = environ["PATH_INFO"].split("/")[2]
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if name not in self.endpoints:
            raise Refused("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        if self.invocation_error:
            status, text = self.invocation_error
            raise Refused("ModelError", "Received error from primary", 424, OriginalStatusCode=status, OriginalMessage=text)
        replica = next(turn % self.replicas for turn in self._turn if turn % self.replicas not in self.silent)
        attributes = f"request_id=abc;replica={replica};queue_ms=1.0"
        start_response("200 OK", [("Content-Type", "image/png"), ("X-Amzn-SageMaker-Custom-Attributes", attributes)])
        return [PNG]


class FakeAwsServer:
    """The shim over moto, on a port of its own, in a thread."""

    def __init__(self) -> None:
        self.aws = FakeAws()
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self.aws(environ, start_response)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


class _Silent(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:
        return


class _Body:
    """A request's body, to be read once more."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        end = len(self._body) if size < 0 else size
        part, self._body = self._body[:end], self._body[end:]
        return part

    def readline(self, size: int = -1) -> bytes:
        return self.read()


def _action(environ: dict[str, Any]) -> tuple[str, str]:
    """Service and action of a request: from its signature and its target; for S3 and IAM, method and path."""
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split("/")
    service = scope[3] if len(scope) > 3 else "unknown"
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return service, target.rpartition(".")[2]
    if environ["PATH_INFO"].startswith("/endpoints/"):
        return service, "Invoke"
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = _Body(body)
        return service, next(part[7:] for part in body.decode().split("&") if part.startswith("Action="))
    return service, f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"


def _answer(start_response: Any, body: dict[str, Any], status: int = 200, error: str = "") -> Iterable[bytes]:
    headers = [("Content-Type", "application/x-amz-json-1.1"), *([("x-amzn-errortype", error)] if error else [])]
    start_response(f"{status} {'OK' if status == 200 else 'Refused'}", headers)
    return [json.dumps(body).encode()]


def _tags(tags: Iterable[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}
