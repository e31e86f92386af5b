"""Adapt a segmenter: the same as ``visionlora train``, as a script.

python scripts/train_segmentation.py --config segmentation_vit_tiny data.root=PATH data.classes=FILE train.epochs=5
"""

import sys

from training import main

if __name__ == "__main__":
    sys.exit(main(str(__doc__), "segmentation_efficientnet_lite0", "data.root=PATH train.epochs=5"))
