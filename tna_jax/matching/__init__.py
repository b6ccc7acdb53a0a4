"""Matching of hidden units: permutation groups found by tracing, linear assignment, weight and activation matching."""
