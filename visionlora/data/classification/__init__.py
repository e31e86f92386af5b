"""Images with one label each: layouts, split, samples."""
