"""One request's logic, as plain objects: budget, edge side, cloud side, and the flow over both."""
