"""Training: passes that train."""
