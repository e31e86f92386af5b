"""Images with a class for every pixel: masks read and checked, samples."""
