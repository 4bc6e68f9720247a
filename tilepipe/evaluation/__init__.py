"""How good a mask is: counts of pixels and objects, compared with the truth."""
