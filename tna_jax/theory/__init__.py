"""Numbers of the theory: two-layer networks, permutation symmetries under anchors."""
