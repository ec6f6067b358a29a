"""Device: the script that measures files, and the connection to the device on which it runs."""
