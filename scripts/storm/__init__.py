"""What scripts/chaos runs."""
