"""Tools: what a user calls beside a fit."""
