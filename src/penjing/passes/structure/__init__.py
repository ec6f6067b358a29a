"""Structure: passes that remove or merge channels, and re-solve layers."""
