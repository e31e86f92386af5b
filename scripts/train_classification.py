"""Adapt a classifier: the same as ``visionlora train``, as a script.

python scripts/train_classification.py --config classification_vit_tiny data.root=PATH train.epochs=5
"""

import sys

from training import main

if __name__ == "__main__":
    sys.exit(main(str(__doc__), "classification_vit_tiny", "data.root=PATH train.epochs=5"))
