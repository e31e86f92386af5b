"""What people call folders and files: names, in lower case, that tell images from what belongs to them."""

IMAGE_FOLDERS = (
    *("images", "imgs", "img", "image", "jpegimages", "img_dir", "leftimg8bit", "pngimages", "input", "photos"),
    *("pictures", "frames", "obj_train_data"),
)
"""The likeliest first, as in the other lists."""

MASK_FOLDERS = (
    *("masks", "mask", "segmentationclass", "ann_dir", "gtfine", "segmentations", "gt", "ground_truth", "groundtruth"),
    *("targets", "masks_machine", "trimaps"),
)
"""Of a class for every pixel."""

OTHER_MASK_FOLDERS = ("segmentationobject", "gtcoarse", "masks_human")
"""Of masks that say something else, or that are for people's eyes."""

LABEL_FOLDERS = (
    *("annotations", "labels", "label", "annotation", "anns", "ann", "xmls", "xml", "jsons", "json", "bboxes"),
    "imagesets",
)
"""Of files about images, or of masks."""

AFTER_IMAGES = ("annot", "_masks", "_mask", "_gt", "_mask_images")
"""What the name of a folder of masks has after that of its images: trainannot, train_masks."""

AFTER_IMAGES_LABELS = ("_labels", "_label", "_annotations")
"""The same of a folder of labels, or of masks."""

MASK_ENDINGS = ("_mask", "-mask", " mask", ".mask", "_label", "_seg", "_segmentation", "_gt")
"""What the name of a mask has after its image's."""
