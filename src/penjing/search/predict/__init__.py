"""What a strategy expects of a network before it is made: its time and its loss."""
