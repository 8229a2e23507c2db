"""The peers: each the same job as its makers document it, in a process of its own with its own packages."""
