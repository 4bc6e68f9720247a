"""Results held against the specifications of their formats, and what readers make of them."""
