"""Discover: the main job, from a model to its reasoning vectors and the proof that they steer it."""
