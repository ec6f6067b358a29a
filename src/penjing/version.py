"""The version of penjing, which its package is built with too."""

__version__ = "0.1.0"
