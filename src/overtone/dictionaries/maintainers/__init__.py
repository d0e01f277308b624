"""What runs around the updates: projections, statistics, controllers."""
