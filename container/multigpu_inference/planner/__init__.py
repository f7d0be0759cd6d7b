"""The planner: measures a model's functions and stages, predicts placements, recommends settings. No part of serving."""
