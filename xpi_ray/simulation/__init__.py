"""Simulated sites, links and cloud, driven by profiles, outcomes and recorded traces."""
