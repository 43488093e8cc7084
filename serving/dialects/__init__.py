"""Wire protocols: one file each, bytes <-> plain values; they translate and hold no logic."""
