"""Values that are cheaper to compute again than to send: mark_cheap finds them, duplicate_cheap copies them."""
