"""The best answer whenever the stop comes: which exits are worth their time, request by request."""
