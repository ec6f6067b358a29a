"""Structure: passes that remove, merge and solve anew."""
