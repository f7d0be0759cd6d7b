"""Export: a model folder's networks as files for other runtimes, compared with eager PyTorch. No part of serving."""
