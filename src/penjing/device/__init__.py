"""Device: the script that measures, and the way to the device where it does."""
