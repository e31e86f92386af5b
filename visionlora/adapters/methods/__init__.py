"""What an adapter does to a weight: a file for each method."""
