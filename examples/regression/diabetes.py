"""The diabetes data of Efron et al. 2004 (in scikit-learn), standardized. `tna train --dataset ./diabetes.py:load --objective regression`."""

import numpy as np
from sklearn.datasets import load_diabetes


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns features (N, 10) and progression (N, 1) in units of its standard deviation, for training and test."""
    features, targets = load_diabetes(return_X_y=True)
    features = (features / features.std(0)).astype(np.float32)
    targets = ((targets - targets.mean()) / targets.std()).astype(np.float32)[:, None]
    test = np.arange(len(features)) % 5 == 0
    return features[~test], targets[~test], features[test], targets[test]
