"""Training in a run folder: from options to data, network, initial models and a trained ensemble."""
