"""What a request leaves behind: one record and one trace."""
