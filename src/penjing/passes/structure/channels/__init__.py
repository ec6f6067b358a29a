"""Channels: how important they are, how many stay, and what that costs."""
