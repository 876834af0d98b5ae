"""Who is connected, and what happens when the same client comes twice."""
