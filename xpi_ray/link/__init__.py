"""What crosses between edge and cloud."""
