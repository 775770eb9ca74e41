"""The testbed: a real control plane and its companions, built from one locked Go module, run as ordinary processes."""
