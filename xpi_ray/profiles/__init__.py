"""What a network costs and how sure its exits are, measured."""
