"""As the toolkit's own examples: its decoder, encoder, content types and errors."""

import torch
from sagemaker_inference import content_types, decoder, encoder, errors


def model_fn(model_dir, context=None):
    assert context is not None  # one parameter more than the contract gets it, default or not
    return torch.nn.Identity(), context.system_properties["gpu_id"], context.system_properties.get("model_dir")


def input_fn(input_data, content_type):
    if content_type == content_types.JSON:
        assert isinstance(input_data, str)
    elif content_type == content_types.NPY:
        assert isinstance(input_data, bytearray)
    return torch.FloatTensor(decoder.decode(input_data, content_type))


def predict_fn(data, model):
    net, gpu, model_dir = model
    assert gpu is None or gpu == 0
    with torch.no_grad():
        return net(data).cpu().numpy() + len(model_dir) * 0


def output_fn(prediction, accept):
    if accept not in encoder.SUPPORTED_CONTENT_TYPES:
        raise errors.UnsupportedFormatError(accept)
    return encoder.encode(prediction, accept)
