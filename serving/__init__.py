"""Serve predictions of versions that the registry keeps, and measure them."""
