"""Policies: from an observation of load, link and machines to a plan for each SLO class."""
