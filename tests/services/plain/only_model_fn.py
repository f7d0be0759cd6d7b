"""Loads a state dict; everything else is left to the toolkit."""

import os

import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, x):
        return torch.softmax(self.linear(x), dim=-1)


def model_fn(model_dir):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Net()
    with open(os.path.join(model_dir, "net.pth"), "rb") as f:
        model.load_state_dict(torch.load(f, map_location="cpu", weights_only=True))
    return model.to(device)
