"""What differs from task to task: data sets, loss, metrics and pictures. One file each."""
