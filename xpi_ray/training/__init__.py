"""Making a network from data: data sets, objectives, the trainer and its command."""
