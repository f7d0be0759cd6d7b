"""Answers with the body that it was sent: what large answers cost on their way."""


def model_fn(model_dir):
    """There is no model."""
    return None


def input_fn(body, content_type):
    """The body as it is."""
    return bytes(body)


def predict_fn(data, model):
    """Pass it on."""
    return data


def output_fn(prediction, accept):
    """The same again."""
    return prediction, "application/octet-stream"


def sample_input():
    """A body of the usual size."""
    return bytes(range(250)) * 800, "application/octet-stream"
