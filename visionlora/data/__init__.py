"""Images, labels, boxes, masks and video frames in; checked samples out."""
