"""What a store asks of a method, and which methods there are."""
