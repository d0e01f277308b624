"""Objectives: the terms of a training loss."""
