"""Scripts that users could have written: each file here is packed as the `inference.py` of a model folder."""
