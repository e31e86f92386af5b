"""Adapt a detector: the same as ``visionlora train``, as a script.

python scripts/train_detection.py --config detection_fcos_vit_tiny data.annotations=FILE train.epochs=5
"""

import sys

from training import main

if __name__ == "__main__":
    sys.exit(main(str(__doc__), "detection_retinanet_efficientnet_lite0", "data.annotations=FILE train.epochs=5"))
