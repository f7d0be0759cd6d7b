"""Has functions around model_fn, and the context of the model server in each."""

import json
import threading

events = []


def pre_model_fn(model_dir):
    events.append(("pre_model_fn", threading.get_ident()))


def model_fn(model_dir, context):
    events.append(("model_fn", threading.get_ident()))
    return {"gpu": context.system_properties.get("gpu_id")}


def model_warmup_fn(model_dir, model, context):
    model["warm"] = True
    events.append(("model_warmup_fn", threading.get_ident()))


def predict_fn(data, model, context):
    events.append(("predict_fn", threading.get_ident()))
    properties = context.request_processor[0].get_request_properties()
    return {
        "order": [name for name, _ in events],
        "threads": len({thread for _, thread in events}),
        "warm": model["warm"],
        "content_type": properties.get("Content-Type"),
        "attributes": context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes"),
        "has_id": bool(context.get_request_id(0)),
        "sum": float(data.sum()),
    }


def output_fn(prediction, accept, context):
    return json.dumps(prediction), "application/json; charset=utf-8"
