"""Plain HTML pages for people."""
