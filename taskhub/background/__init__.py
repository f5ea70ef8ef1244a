"""What starts without a request."""
