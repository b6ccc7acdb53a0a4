"""The finished models of one or more runs as one population: loading, compatibility, paths, fusion methods."""
