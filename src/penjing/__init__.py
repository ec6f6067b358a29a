"""penjing: from a trained PyTorch network to the smaller file that runs best on a device."""
