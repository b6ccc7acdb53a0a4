"""The programs that train many models at once: data, configuration, run folders, progress."""
