"""What several tests need: data sets, models and runs to make, and oracles to hold against."""
