"""Does a request in one function, as scripts do that outgrew the four."""

import json
import os

import torch


def model_fn(model_dir):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with open(os.path.join(model_dir, "weights.json")) as f:
        return torch.tensor(json.load(f), device=device)


def transform_fn(model, request_body, content_type, accept):
    if content_type == "application/json":
        rows = json.loads(request_body)
    else:
        rows = [[float(x) for x in line.split(",")] for line in request_body.splitlines()]
    result = (torch.tensor(rows, device=model.device) * model).sum(dim=1).tolist()
    if accept == "text/csv":
        return "\n".join(str(x) for x in result), accept
    return json.dumps(result), "application/json"
