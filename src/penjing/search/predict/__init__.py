"""What a strategy expects of a network before it is made: what it costs and what it loses."""
