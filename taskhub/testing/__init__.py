"""Shipped helpers for testing TaskHub, its stores and its plugins."""
