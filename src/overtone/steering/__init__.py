"""Steering: edits along directions, where and when they apply, in which dose, and generation under them."""
