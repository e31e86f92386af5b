"""Many adapters over one base, and batches in which every image has its own."""
