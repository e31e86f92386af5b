"""Images with labelled objects: COCO, Pascal VOC and YOLO read into one form, every fault named."""
