"""What a precision of floating point can tell apart."""

TIE_FP32 = 1e-5
"""A gap of the two best logits, over their range, below which fp32 cannot tell them apart."""
TIE_FP64 = 1e-12
