"""Composing, losses, metrics and the loop behind `demo/train.py`; nothing here is part of the image."""
