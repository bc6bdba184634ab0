"""Progressive networks: stacks of blocks, each with an exit."""
