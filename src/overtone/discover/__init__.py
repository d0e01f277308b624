"""The main job: from sampled traces to discovered, named and causally tested reasoning vectors."""
