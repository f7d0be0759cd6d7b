"""Does nothing with 200 KB and answers 10 bytes: what is left is the way of a request itself."""


def model_fn(model_dir):
    """There is no model."""
    return None


def input_fn(body, content_type):
    """What crosses to the model is a number."""
    return len(body)


def predict_fn(data, model):
    """Pass it on."""
    return data


def output_fn(prediction, accept):
    """Ten bytes."""
    return f"{prediction:010d}".encode(), "application/octet-stream"


def sample_input():
    """A body of the usual size."""
    return bytes(200_000), "application/octet-stream"
