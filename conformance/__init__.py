"""The kit: holds the model and any snapshotter against each other."""
