"""The models on disk and in memory: found, loaded, checked, swapped, handed out."""
