"""Ray Serve deployments: placement, wiring and transport of what the library does."""
