"""What a network's answer rests on: importance of features, and which channels carry it."""
