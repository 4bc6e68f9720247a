"""tilepipe: exact, resumable U-Net inference over images too large for memory."""
