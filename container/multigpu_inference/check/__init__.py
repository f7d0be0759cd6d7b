"""The check: runs a model folder's functions where the container would, and says what will be parallel. No part of serving."""
